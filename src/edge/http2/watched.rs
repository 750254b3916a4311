//! The byte stream under an HTTP/2 connection: notes when it stands still, and ends it when it is flooded.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{census::Census, line::Line};
use crate::ops::gather::poll_write_gathered;

pub(super) struct Watched<IO> {
    io: IO,
    line: Line,
    census: Census,
}

impl<IO> Watched<IO> {
    pub(super) fn new(io: IO, line: Line) -> Self {
        let census = Census::new(line.now());
        Self { io, line, census }
    }

    fn after_write(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(step)) => {
                self.line.note_written();
                self.census.wrote(*step);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.line.note_blocked(),
        }
        result
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let counted = this.census.read(&buf.filled()[start..], this.line.now());
        Poll::Ready(counted.map_err(|flood| io::Error::new(io::ErrorKind::InvalidData, flood)))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.after_write(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = poll_write_gathered(&mut this.io, cx, bufs);
        this.after_write(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        if result.is_pending() {
            this.line.note_blocked();
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_shutdown(cx);
        if result.is_pending() {
            this.line.note_blocked();
        }
        result
    }
}
