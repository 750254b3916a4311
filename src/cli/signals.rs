//! SIGTERM and SIGINT, counted by a thread of their own, for the commands that serve. Never ends anything itself.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

/// SIGTERM and SIGINT, counted.
pub(super) struct Signals {
    come: Arc<AtomicUsize>,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let come = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&come);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut term, mut int) = {
            let _context = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = term.recv() => {}
                        _ = int.recv() => {}
                    }
                    counter.fetch_add(1, Relaxed);
                }
            });
        })?;
        Ok(Self { come })
    }

    pub(super) fn have_come(&self, how_many: usize) -> bool {
        self.come.load(Relaxed) >= how_many
    }

    pub(super) fn wait_for(&self, how_many: usize) {
        while !self.have_come(how_many) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}
