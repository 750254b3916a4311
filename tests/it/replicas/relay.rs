//! The network between one replica and Redis, which can be cut.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Network {
    Whole,
    /// What is sent stays under way and arrives when the network is whole again, as after lost packets.
    Stalled,
    /// Connections are closed, and no new ones are made.
    Closed,
}

pub(super) struct Relay {
    pub(super) address: SocketAddr,
    network: watch::Sender<Network>,
}

impl Relay {
    pub(super) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let (network, state) = watch::channel(Network::Whole);
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(connection(from, to, state.clone()));
            }
        });
        Self { address, network }
    }

    pub(super) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn connection(from: TcpStream, to: SocketAddr, mut network: watch::Receiver<Network>) {
    // A connection that is asked for while the network stalls is made, and hears nothing.
    if *network.borrow_and_update() == Network::Closed {
        return;
    }
    let Ok(to) = TcpStream::connect(to).await else { return };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    let mut closing = network.clone();
    tokio::select! {
        _ = closing.wait_for(|network| *network == Network::Closed) => {}
        _ = copy(from_read, to_write, network.clone()) => {}
        _ = copy(to_read, from_write, network) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut room = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut room).await?;
        if read == 0 {
            return Ok(());
        }
        if network.wait_for(|network| *network != Network::Stalled).await.is_err() {
            return Ok(());
        }
        to.write_all(&room[..read]).await?;
    }
}
