//! A client and a server of the PostgreSQL protocol talk to each other.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::SocketAddr;

use async_trait::async_trait;
use service::libpq::client::Client;
use service::libpq::{self, Conn, Handler, QueryError, Startup, WireError};
use service::task::Shutdown;
use tokio::net::TcpListener;

#[derive(Default)]
struct Echo(Startup);

#[async_trait]
impl Handler for Echo {
    async fn authenticate(&mut self, startup: &Startup, password: &str) -> Result<(), QueryError> {
        self.0 = startup.clone();
        if password == "token" {
            Ok(())
        } else {
            Err(QueryError::refused("28P01", "no"))
        }
    }

    async fn query(&mut self, conn: &mut Conn, sql: &str) -> Result<(), QueryError> {
        match sql {
            "options" => {
                conn.row_description(&["name", "value"]);
                for (name, value) in &self.0.options {
                    conn.data_row(&[Some(name.as_bytes()), Some(value.as_bytes())]);
                }
                conn.data_row(&[None, Some(b"")]);
                conn.command_complete("SELECT");
            }
            "both" => {
                conn.copy_both().await?;
                while let Some(data) = conn.read_copy().await? {
                    conn.write_copy(&data).await?;
                    conn.flush().await?;
                }
                conn.copy_done();
                conn.command_complete("COPY");
            }
            "flood" => {
                conn.copy_out().await?;
                for _ in 0..64 {
                    conn.write_copy(&[7; 1 << 20]).await?;
                }
                conn.copy_done();
                conn.command_complete("COPY");
            }
            _ => return Err(QueryError::refused("42601", "what?")),
        }
        Ok(())
    }
}

async fn begin() -> (SocketAddr, Shutdown) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
    let factory = |_| Box::new(Echo::default()) as Box<dyn Handler>;
    drop(shutdown.spawn(
        "server",
        libpq::serve_on(listener, factory, shutdown.clone()),
    ));
    (addr, shutdown)
}

#[tokio::test]
async fn options_and_rows_arrive_and_an_error_ends_only_its_query() {
    let (addr, shutdown) = begin().await;
    let mut client = Client::connect(addr, &[("tenant_id", "ab"), ("x", "a b")], "token")
        .await
        .unwrap();
    let refused = client.simple_query("nonsense").await;
    assert!(matches!(refused, Err(WireError::Server { sqlstate, .. }) if sqlstate == "42601"));
    let rows = client.simple_query("options").await.unwrap();
    assert_eq!(rows[0], [Some("tenant_id".into()), Some("ab".into())]);
    assert_eq!(rows[1], [Some("x".into()), Some("a b".into())]);
    assert_eq!(rows[2], [None, Some("".into())]);
    shutdown.request();
    shutdown.finished().await;
}

#[tokio::test]
async fn a_wrong_password_is_refused_with_its_sqlstate() {
    let (addr, _shutdown) = begin().await;
    let refused = Client::connect(addr, &[], "guess").await;
    assert!(matches!(refused, Err(WireError::Server { sqlstate, .. }) if sqlstate == "28P01"));
}

#[tokio::test]
async fn copies_run_in_both_directions_and_keep_their_bounds() {
    let (addr, _shutdown) = begin().await;
    let client = Client::connect(addr, &[], "token").await.unwrap();
    let mut copy = client.query_copy_both("both").await.unwrap();
    for size in [0, 1, 100_000] {
        copy.write_copy(&vec![1; size]).await.unwrap();
        copy.flush().await.unwrap();
        assert_eq!(copy.read_copy().await.unwrap().unwrap().len(), size);
    }
    let refused = copy.write_copy(&vec![0; libpq::MAX_MESSAGE]).await;
    assert!(matches!(refused, Err(WireError::TooLong(_))));
    copy.copy_done();
    copy.flush().await.unwrap();
    assert!(copy.read_copy().await.unwrap().is_none());

    let client = Client::connect(addr, &[], "token").await.unwrap();
    let mut copy = client.query_copy_out("flood").await.unwrap();
    let mut total = 0;
    while let Some(data) = copy.read_copy().await.unwrap() {
        total += data.len();
    }
    assert_eq!(total, 64 << 20);
}

#[tokio::test]
async fn postgres_own_client_is_understood() {
    let (addr, _shutdown) = begin().await;
    let run = async |password: &str, sql: &str| {
        let conninfo = format!(
            "host={} port={} user=u dbname=d sslmode=prefer gssencmode=prefer options='-c a=b'",
            addr.ip(),
            addr.port()
        );
        let output = tokio::process::Command::new("psql")
            .args(["-X", "-A", "-t", "-d", &conninfo, "-c", sql])
            .env("PGPASSWORD", password)
            .output()
            .await
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_eq!(run("token", "options").await, "a|b\n|\n");
    assert_eq!(run("token", "nonsense").await, "ERROR:  what?\n");
    assert!(run("guess", "options").await.contains("FATAL:  no"));
}
