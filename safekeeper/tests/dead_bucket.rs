//! The process over a bucket that does not answer: it serves from its disk, and says so.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking

use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn any() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_stops_no_start() {
    let root = tempfile::tempdir().unwrap();
    // It takes connections, as long as the kernel has room for them, and says nothing.
    let silent = any();
    let (dead, [libpq, http]) = (port(&silent), [any(), any()].each_ref().map(port));
    let config = root.path().join("safekeeper.toml");
    let text = format!(
        "node_id = 1\ndata_directory = \"{}\"\ndevelopment_kek = \"{}\"\n\
         listen = \"127.0.0.1:{libpq}\"\nhttp = \"127.0.0.1:{http}\"\n\
         [bucket]\nurl = \"s3://dev\"\nendpoint = \"http://127.0.0.1:{dead}\"\n\
         region = \"x\"\naccess_key = \"x\"\nsecret_key = \"x\"\n",
        root.path().join("node").display(),
        "ab".repeat(32)
    );
    std::fs::write(&config, text).unwrap();
    let mut process = Killed(
        Command::new(env!("CARGO_BIN_EXE_safekeeper"))
            .arg("--config")
            .arg(&config)
            .spawn()
            .unwrap(),
    );
    let ready = async {
        loop {
            assert!(process.0.try_wait().unwrap().is_none(), "it has ended");
            match get(http, "/ready").await {
                Some(ready) => break ready,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let ready = tokio::time::timeout(Duration::from_secs(60), ready)
        .await
        .unwrap();
    assert!(ready.contains("200"), "{ready}");
    assert!(TcpStream::connect(("127.0.0.1", libpq)).await.is_ok());
    let metrics = get(http, "/metrics").await.unwrap();
    let name = "redoubt_safekeeper_bucket_unreachable_since_seconds ";
    let since = metrics.lines().find_map(|line| line.strip_prefix(name));
    assert!(since.unwrap().parse::<f64>().unwrap() > 1e9, "{metrics}");
}
