//! The demonstration: a few requests that show the shop at work, and then the one that stops it.
//!
//! Run by both programs when they are started without an address. It is a client like any other.

use std::io;

use futures::{AsyncRead, AsyncWrite};

use crate::http::{self, Response};

/// Makes the requests over connections from `connect`; an answer that is not as expected is an error.
pub(crate) async fn run<S, F>(connect: impl Fn() -> F) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = io::Result<S>>,
{
    let ask = async |method: &str, path: &str, body: &str| {
        let response = http::ask(&mut connect().await?, method, path, body).await?;
        println!("{method} {path} {body:?} -> {} {:?}", response.status, response.body);
        Ok::<Response, io::Error>(response)
    };
    expect(ask("GET", "/items/1", "").await?.status == 404 || ask("GET", "/items/1", "").await?.status == 200)?;
    expect(ask("PUT", "/items/1", "kettle").await?.status == 201)?;
    // The queue's worker adds the label, and its news empties the cache.
    loop {
        let response = ask("GET", "/items/1", "").await?;
        expect(response.status == 200)?;
        if response.body.starts_with("kettle [6 letters]") {
            break;
        }
    }
    while !ask("GET", "/items/1", "").await?.body.ends_with("(cached)\n") {}
    expect(ask("PUT", "/items/1", "teapot").await?.status == 201)?;
    while !ask("GET", "/items/1", "").await?.body.starts_with("teapot") {}
    expect(ask("GET", "/items/none", "").await?.status == 404)?;
    expect(ask("GET", "/stats", "").await?.status == 200)?;
    expect(ask("POST", "/stop", "").await?.status == 202)
}

fn expect(is_so: bool) -> io::Result<()> {
    if is_so {
        Ok(())
    } else {
        Err(io::Error::other("not the answer that was expected"))
    }
}
