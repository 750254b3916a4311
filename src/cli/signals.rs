//! SIGTERM and SIGINT, counted by a thread of their own, for the commands that serve. Never ends anything itself.
//!
//! SIGHUP would end the process at once, with orders in flight: it is what `reload` of an init system and log rotation
//! send by habit. `oncegate run` takes it and says that there is no reload; the demo leaves it to the terminal.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a SIGHUP does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hangup {
    /// What the system does without us: the process ends.
    Ends,
    /// Nothing, and standard error says so.
    IsRefused,
}

/// SIGTERM and SIGINT, counted.
pub(super) struct Signals {
    come: Arc<AtomicUsize>,
}

impl Signals {
    pub(super) fn listen(hangup: Hangup) -> io::Result<Self> {
        let come = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&come);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut term, mut int, mut hup) = {
            let _context = runtime.enter();
            let hup = match hangup {
                Hangup::Ends => None,
                Hangup::IsRefused => Some(signal(SignalKind::hangup())?),
            };
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, hup)
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = term.recv() => {}
                        _ = int.recv() => {}
                        () = hung_up(&mut hup) => {
                            super::run::say("SIGHUP: there is no reload; SIGTERM drains, then start anew");
                            continue;
                        }
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

async fn hung_up(hup: &mut Option<Signal>) {
    match hup {
        Some(hup) => {
            hup.recv().await;
        }
        None => std::future::pending().await,
    }
}
