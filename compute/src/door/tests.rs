//! The door between a client and a server that only repeats.

use service::clock::boottime;

use super::*;

async fn client(listener: &TcpListener) -> TcpStream {
    TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap()
}

fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0alice\0\0";
    [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

fn way(socket: PathBuf, lives: Duration) -> Way {
    let until = deadline::Shared::new(boottime() + lives);
    Way { socket, until }
}

#[tokio::test]
async fn nothing_goes_on_once_the_deadline_has_passed() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let server = tokio::net::UnixListener::bind(&socket).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = way(socket, Duration::from_secs(2));
    let until = way.until.clone();
    let (_door, receiver) = watch::channel(Door::Open(way));
    let mut client = client(&listener).await;
    let shutdown = Shutdown::new();
    drop(shutdown.spawn("test", serve(listener, receiver, shutdown.clone())));
    client.write_all(&startup()).await.unwrap();
    let (mut behind, _) = server.accept().await.unwrap();
    let mut packet = vec![0; startup().len()];
    behind.read_exact(&mut packet).await.unwrap();
    behind.write_all(b"in time").await.unwrap();
    let mut heard = vec![0; 7];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, b"in time");

    while !until.passed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!until.extend(boottime() + Duration::from_secs(30)), "W3");
    behind.write_all(b"a row of before").await.unwrap();
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest).await);
    assert_eq!(rest, b"", "F4");
    shutdown.request();
}

#[tokio::test]
async fn silent_clients_keep_nobody_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusal = Refusal::starting("elected");
    let (_door, receiver) = watch::channel(Door::Closed(refusal.clone()));
    let limits = Limits {
        silent: 3,
        through: 1,
    };
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(client(&listener).await);
    }
    let mut speaks = client(&listener).await;
    let shutdown = Shutdown::new();
    let served = serve_within(limits, listener, receiver, shutdown.clone());
    drop(shutdown.spawn("test", served));
    speaks.write_all(&startup()).await.unwrap();
    let mut answer = Vec::new();
    speaks.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, refusal.packet());
    // F5: the one that came first has made room, the others may still speak.
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    silent[1].write_all(&startup()).await.unwrap();
    answer.clear();
    silent[1].read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, refusal.packet());
    shutdown.request();
}

#[tokio::test]
async fn a_closed_door_says_why_and_an_open_one_is_cut_when_it_closes() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let server = tokio::net::UnixListener::bind(&socket).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = Door::Closed(Refusal::starting("elected"));
    let (door, receiver) = watch::channel(closed.clone());
    let mut early = client(&listener).await;
    let mut later = client(&listener).await;
    let shutdown = Shutdown::new();
    drop(shutdown.spawn("test", serve(listener, receiver, shutdown.clone())));

    // TLS is refused first, then the reason comes (F1).
    early
        .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
        .await
        .unwrap();
    assert_eq!(early.read_u8().await.unwrap(), b'N');
    early.write_all(&startup()).await.unwrap();
    let mut answer = Vec::new();
    early.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, Refusal::starting("elected").packet());

    door.send_replace(Door::Open(way(socket, Duration::from_secs(30))));
    later.write_all(&startup()).await.unwrap();
    let (mut behind, _) = server.accept().await.unwrap();
    let mut packet = vec![0; startup().len()];
    behind.read_exact(&mut packet).await.unwrap();
    assert_eq!(packet, startup());
    behind.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    later.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");

    // F3
    door.send_replace(closed);
    assert_eq!(later.read(&mut hello).await.unwrap_or(0), 0);
    assert_eq!(behind.read(&mut hello).await.unwrap_or(0), 0);
    shutdown.request();
}
