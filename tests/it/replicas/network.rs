//! The network between all processes of a run but the shop's: every Redis and every Sentinel is reached through a relay,
//! which finds out by /proc whose connection it carries, so that one process can be cut off from some others.
//!
//! So it needs no rights and no network namespaces, and servers may announce addresses of their own: those of relays.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::spawn_blocking,
    time::sleep,
};

/// A process is made known as soon as it runs, which its first connection can be faster than.
const LOOKS_MAX: u32 = 20;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// From the best to the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Network {
    Whole,
    /// What is sent stays under way and arrives when the network is whole again, as after lost packets.
    Stalled,
    /// Connections are closed, and no new ones are made.
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Party {
    Replica(usize),
    Server(usize),
    Sentinel,
}

/// What can be cut.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Link {
    /// All that this replica has to do with the store.
    Replica(usize),
    /// What Redis servers tell each other about what they hold.
    Replication,
    /// This server, for other servers and Sentinels; replicas reach it.
    Peers(usize),
}

type Cuts = HashMap<Link, Network>;

pub(super) struct Net {
    /// By their processes.
    parties: Mutex<HashMap<u32, Party>>,
    cuts: watch::Sender<Cuts>,
}

/// Leads to one server, once that has a port.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    to: Arc<OnceLock<SocketAddr>>,
}

impl Net {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { parties: Mutex::default(), cuts: watch::Sender::new(Cuts::default()) })
    }

    pub(super) async fn relay(self: &Arc<Self>, server: Party) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let to = Arc::new(OnceLock::new());
        let (net, target) = (Arc::clone(self), Arc::clone(&to));
        tokio::spawn(async move {
            while let Ok((from, peer)) = listener.accept().await {
                let (net, target) = (Arc::clone(&net), Arc::clone(&target));
                tokio::spawn(async move {
                    // Whoever is gone already, or belongs to nobody, is not let in.
                    let Some(party) = net.party(peer, address).await else { return };
                    let Some(to) = target.get() else { return };
                    connection(from, *to, &links(party, server), net.cuts.subscribe()).await;
                });
            }
        });
        Relay { address, to }
    }

    /// This process is this party from now on.
    pub(super) fn enlist(&self, process: u32, party: Party) {
        let mut parties = self.parties.lock().expect("nobody panics with it");
        parties.retain(|_, known| *known != party || party == Party::Sentinel);
        parties.insert(process, party);
    }

    pub(super) fn set(&self, link: Link, network: Network) {
        self.cuts.send_modify(|cuts| {
            cuts.insert(link, network);
        });
    }

    async fn party(self: &Arc<Self>, peer: SocketAddr, relay: SocketAddr) -> Option<Party> {
        for _ in 0..LOOKS_MAX {
            let net = Arc::clone(self);
            let found =
                spawn_blocking(move || net.owner(inode(peer, relay)?)).await.expect("a look is no harm");
            if found.is_some() {
                return found;
            }
            sleep(LOOK_PAUSE).await;
        }
        None
    }

    fn owner(&self, inode: u64) -> Option<Party> {
        let parties = self.parties.lock().expect("nobody panics with it").clone();
        let socket = format!("socket:[{inode}]");
        parties.into_iter().find_map(|(process, party)| {
            let held = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
            let mut targets = held.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            targets.any(|target| target.as_os_str() == socket.as_str()).then_some(party)
        })
    }
}

impl Relay {
    pub(super) fn lead_to(&self, port: u16) {
        self.to.set(SocketAddr::from(([127, 0, 0, 1], port))).expect("it leads to one server");
    }
}

/// The socket that is connected from here to there.
fn inode(from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let shown = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let connection = format!(" {} {} ", shown(from), shown(to));
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let line = table.lines().find(|line| line.contains(&connection))?;
    line.split_whitespace().nth(9)?.parse().ok()
}

/// What a connection goes over.
fn links(from: Party, to: Party) -> Vec<Link> {
    match (from, to) {
        (Party::Replica(replica), _) => vec![Link::Replica(replica)],
        (Party::Server(one), Party::Server(other)) => {
            vec![Link::Replication, Link::Peers(one), Link::Peers(other)]
        }
        (_, Party::Server(server)) => vec![Link::Peers(server)],
        _ => vec![],
    }
}

fn state(cuts: &Cuts, links: &[Link]) -> Network {
    links.iter().filter_map(|link| cuts.get(link).copied()).max().unwrap_or(Network::Whole)
}

async fn connection(from: TcpStream, to: SocketAddr, links: &[Link], mut cuts: watch::Receiver<Cuts>) {
    // A connection that is asked for while the network stalls is made, and hears nothing.
    if state(&cuts.borrow_and_update(), links) == Network::Closed {
        return;
    }
    let Ok(to) = TcpStream::connect(to).await else { return };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    let mut closing = cuts.clone();
    tokio::select! {
        _ = closing.wait_for(|cuts| state(cuts, links) == Network::Closed) => {}
        _ = copy(from_read, to_write, links, cuts.clone()) => {}
        _ = copy(to_read, from_write, links, cuts) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    links: &[Link],
    mut cuts: watch::Receiver<Cuts>,
) -> io::Result<()> {
    let mut room = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut room).await?;
        if read == 0 {
            return Ok(());
        }
        if cuts.wait_for(|cuts| state(cuts, links) != Network::Stalled).await.is_err() {
            return Ok(());
        }
        to.write_all(&room[..read]).await?;
    }
}
