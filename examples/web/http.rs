//! Just enough HTTP/1.1 for the example: one request, one answer, and the connection is closed.
//!
//! Between the sockets of either runtime and the shop. It knows no database.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAX_HEAD: usize = 8 * 1024;
const MAX_BODY: usize = 64 * 1024;

/// What was asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// What is answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
        }
    }
}

/// Reads one request from `stream`.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Request> {
    let (head, mut body) = read_head(stream).await?;
    let mut words = head.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(bad("no request line"));
    };
    let length = content_length(&head)?;
    if length > MAX_BODY {
        return Err(bad("the body is too long"));
    }
    let have = body.len().min(length);
    body.resize(length, 0);
    stream.read_exact(&mut body[have..]).await?;
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        body: String::from_utf8(body).map_err(|_| bad("the body is not UTF-8"))?,
    })
}

/// Writes the answer and closes our side.
pub(crate) async fn write_response(stream: &mut (impl AsyncWrite + Unpin), response: &Response) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {} \r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        response.status,
        response.body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(response.body.as_bytes()).await?;
    stream.flush().await?;
    stream.close().await
}

/// As a client: sends a request, and reads the answer to its end.
pub(crate) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<Response> {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| bad("half an answer"))?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok(Response::new(status.ok_or_else(|| bad("no status"))?, body))
}

/// The head as text, and what came behind it.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(String, Vec<u8>)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut read = Vec::new();
    let mut piece = [0; 1024];
    loop {
        if let Some(at) = read.windows(END.len()).position(|window| window == END) {
            let body = read.split_off(at + END.len());
            let head = String::from_utf8(read).map_err(|_| bad("the head is not UTF-8"))?;
            return Ok((head, body));
        }
        match stream.read(&mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if read.len() > MAX_HEAD => return Err(bad("the head is too long")),
            count => read.extend_from_slice(&piece[..count]),
        }
    }
}

fn content_length(head: &str) -> io::Result<usize> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match lengths.next() {
        Some((_, length)) => length.trim().parse().map_err(|_| bad("a strange length")),
        None => Ok(0),
    }
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
