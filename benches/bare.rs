//! What HTTP costs by itself: reads bodies and answers 200, and sends a file from memory. The limit that a gateway is
//! measured against.
//!
//! `bare ADDRESS [FILE]`: `GET /` sends the file.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().expect("an address");
    let blob = arguments.next().map(std::fs::read).transpose()?.map(Bytes::from).unwrap_or_default();
    let listener = tokio::net::TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let blob = blob.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let blob = blob.clone();
            async move {
                let body = if request.method() == Method::GET { blob } else { Bytes::new() };
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
