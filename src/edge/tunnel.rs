//! A connection that has changed its protocol: bytes both ways until one side ends (RFC 9110 section 7.8).

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};

/// Joins a client's connection to the shop's. `ahead` is what the client sent behind its request.
pub async fn run<IO>(mut client: IO, ahead: Bytes, shop: OnUpgrade)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(shop) = shop.await else { return };
    let mut shop = TokioIo::new(shop);
    if shop.write_all(&ahead).await.is_err() {
        return;
    }
    // Either side may end it at any time; there is nobody left to tell.
    let _ = copy_bidirectional(&mut client, &mut shop).await;
}
