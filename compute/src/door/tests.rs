//! The door between a client and a server that only repeats.

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

    door.send_replace(Door::Open(socket));
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
