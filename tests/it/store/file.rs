//! The file store keeps what every store promises, on a real disk and in real time, and it keeps it across its own end.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use oncegate::{
    gate::core::TICK,
    store::{
        Ask, Claimed, Ending, Fence, InDoubtPolicy, Kept, LaneView, Record, Resolution, Resolved, Settled,
        Store,
        file::{File, OpenError, Opened},
        memory::MemoryLimits,
    },
};
use smallvec::smallvec;

use super::conformance::{
    LONG, OVER, SHORT, Stand, ask, claim, conforms, done, doubt, failed, key, lead, record, replay, settle,
};

const LIMITS: MemoryLimits = MemoryLimits { records_bytes_max: 16 << 20, states_max: 10_000 };

fn open(folder: &Path) -> Opened {
    File::open(folder, LIMITS, [7; 32]).expect("a store in a folder of its own")
}

struct OnDisk {
    store: Arc<File>,
    _folder: tempfile::TempDir,
}

impl Stand for OnDisk {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for a store");
        let store = open(folder.path()).store;
        let ticking = Arc::downgrade(&store);
        drop(tokio::spawn(async move {
            let mut interval = tokio::time::interval(TICK);
            loop {
                interval.tick().await;
                let Some(store) = ticking.upgrade() else { return };
                store.tick();
            }
        }));
        Self { store, _folder: folder }
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn other(&self) -> &dyn Store {
        &*self.store
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

conforms!(super::OnDisk, tokio::test);

/// Opens the store of a folder anew, after the one before was closed, and does something with it.
async fn in_a_new_life<T>(folder: &Path, act: impl AsyncFnOnce(&File) -> T) -> T {
    let opened = open(folder);
    assert_eq!(opened.damaged, None);
    let done = act(&opened.store).await;
    opened.store.close();
    done
}

#[tokio::test]
async fn records_tombstones_and_marks_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let fence = in_a_new_life(folder.path(), async |store| {
        let hold = lead(store, &ask(1, "a", "order a")).await;
        settle(store, &hold, done(&hold, "1001")).await;
        let stone = lead(store, &ask(2, "b", "order b")).await;
        let dropped = Arc::new(Record { body: Kept::Dropped, ..(*record(stone.fence, "")).clone() });
        settle(store, &stone, Ending::Done { record: dropped, unseen: LONG, seen: LONG }).await;
        let marked = lead(store, &ask(3, "c", "order c")).await;
        settle(store, &marked, Ending::InDoubt).await;
        assert_eq!(store.resolve(key("order c"), Resolution::Done(LONG)).await, Ok(Resolved::Changed));
        let gone = lead(store, &ask(4, "d", "order d")).await;
        settle(store, &gone, failed(&gone)).await;
        gone.fence
    })
    .await;
    for _ in 0..2 {
        in_a_new_life(folder.path(), async |store| {
            let kept = replay(store, &ask(5, "a", "order a")).await;
            let expected = Record { remaining: kept.remaining, ..(*record(kept.fence, "1001")).clone() };
            assert_eq!(*kept, expected);
            assert!(kept.remaining > LONG / 2 && kept.remaining <= LONG, "{:?}", kept.remaining);
            assert_eq!(replay(store, &ask(5, "b", "order b")).await.body, Kept::Dropped);
            assert!(matches!(claim(store, &ask(5, "c", "order c")).await, Claimed::Resolved { .. }));
        })
        .await;
    }
    in_a_new_life(folder.path(), async |store| {
        assert!(lead(store, &ask(5, "d", "order d")).await.fence > fence, "fences rise across lives");
    })
    .await;
}

#[tokio::test]
async fn what_was_running_is_in_doubt_from_the_new_start_on() {
    let folder = tempfile::tempdir().unwrap();
    let hold = in_a_new_life(folder.path(), async |store| {
        let brief = Ask { lease: SHORT, ..ask(1, "a", "order a") };
        let hold = lead(store, &brief).await;
        lead(store, &Ask { in_doubt: InDoubtPolicy::Retry, ..ask(2, "b", "order b") }).await;
        hold
    })
    .await;
    tokio::time::sleep(OVER).await;
    let opened = open(folder.path());
    assert_eq!(opened.orphans, 2);
    let store = opened.store;
    let (age, remaining) = doubt(&*store, &ask(3, "a", "order a")).await;
    assert!(age < OVER && remaining > LONG / 2, "{age:?} {remaining:?}");
    lead(&*store, &ask(3, "b", "order b")).await;
    // Its owner is not known any more, but an answer of that flight would be as good as any.
    assert_eq!(settle(&*store, &hold, done(&hold, "1001")).await, Settled::Late);
    replay(&*store, &ask(3, "a", "order a")).await;
}

#[tokio::test]
async fn doubts_lives_generations_and_scopes_go_on_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let scoped = |owner, request| Ask { scope: Some(key("scope")), ..ask(owner, request, "order s") };
    let bought = |owner| Ask { generations: smallvec![key("session")], ..ask(owner, "g", "order g") };
    in_a_new_life(folder.path(), async |store| {
        let hold = Ask { in_doubt: InDoubtPolicy::Hold(SHORT), ..ask(1, "a", "order a") };
        let brief = lead(store, &hold).await;
        settle(store, &brief, Ending::InDoubt).await;
        let seen = lead(store, &ask(2, "b", "order b")).await;
        let record = record(seen.fence, "1001");
        settle(store, &seen, Ending::Done { record, unseen: LONG, seen: SHORT }).await;
        store.delivered(&[seen.fence]).await.expect("the store is up");
        let of_scope = lead(store, &scoped(3, "token 1")).await;
        settle(store, &of_scope, done(&of_scope, "1001")).await;
        let of_session = lead(store, &bought(4)).await;
        settle(store, &of_session, done(&of_session, "1001")).await;
        store.begin_generation(key("session")).await.expect("the store is up");
    })
    .await;
    tokio::time::sleep(OVER).await;
    in_a_new_life(folder.path(), async |store| {
        lead(store, &ask(5, "a", "order a")).await;
        lead(store, &ask(5, "b", "order b")).await;
        replay(store, &scoped(5, "token 2")).await;
        lead(store, &bought(5)).await;
    })
    .await;
}

#[tokio::test]
async fn what_has_ended_is_gone_from_the_file_too() {
    let folder = tempfile::tempdir().unwrap();
    in_a_new_life(folder.path(), async |store| {
        for owner in 1..50 {
            let name = format!("order {owner}");
            let hold = lead(store, &ask(owner, &name, &name)).await;
            settle(store, &hold, done(&hold, "1001")).await;
            assert_eq!(store.forget(key(&name)).await, Ok(1));
        }
    })
    .await;
    let store = open(folder.path()).store;
    assert_eq!((store.stats().records, store.stats().lanes), (0, 0));
    assert_eq!(store.inspect(key("order 7")).await, Ok(LaneView::Free));
}

fn database(folder: &Path) -> PathBuf {
    folder.join("store.redb")
}

fn length(folder: &Path) -> u64 {
    fs::metadata(database(folder)).expect("the file is there").len()
}

/// A dozen times as much as the store may keep goes through it.
#[tokio::test]
async fn the_file_does_not_grow_with_the_orders_that_have_been() {
    let folder = tempfile::tempdir().unwrap();
    let limits = MemoryLimits { records_bytes_max: 2 << 20, states_max: 1000 };
    let store = File::open(folder.path(), limits, [7; 32]).expect("a store").store;
    let body = Bytes::from(vec![b'x'; 60_000]);
    let mut longest = 0;
    for owner in 0..400_u128 {
        let name = format!("order {owner}");
        let hold = lead(&*store, &ask(owner, &name, &name)).await;
        let whole = Record { body: Kept::Whole(body.clone()), ..(*record(hold.fence, "")).clone() };
        let ending = Ending::Done { record: Arc::new(whole), unseen: LONG, seen: LONG };
        settle(&*store, &hold, ending).await;
        store.tick();
        longest = longest.max(length(folder.path()));
    }
    assert!(store.stats().record_bytes <= 2 << 20);
    assert!(longest < 16 << 20, "{longest} bytes for 2 MiB");
}

/// The shop is never idle, and what was once there is not paid for with disk for ever.
#[tokio::test]
async fn what_is_empty_is_given_back_while_requests_come_too() {
    let folder = tempfile::tempdir().unwrap();
    let limits = MemoryLimits { records_bytes_max: 128 << 20, states_max: 1000 };
    let store = File::open(folder.path(), limits, [7; 32]).expect("a store").store;
    let body = Bytes::from(vec![b'x'; 2 << 20]);
    for owner in 0..40_u128 {
        let name = format!("order {owner}");
        let hold = lead(&*store, &ask(owner, &name, "lane")).await;
        let whole = Record { body: Kept::Whole(body.clone()), ..(*record(hold.fence, "")).clone() };
        let ending = Ending::Done { record: Arc::new(whole), unseen: LONG, seen: LONG };
        settle(&*store, &hold, ending).await;
    }
    assert!(length(folder.path()) > 80 << 20);
    assert_eq!(store.forget(key("lane")).await, Ok(40));
    for owner in 100..120_u128 {
        let name = format!("order {owner}");
        let hold = lead(&*store, &ask(owner, &name, &name)).await;
        settle(&*store, &hold, done(&hold, "paid")).await;
    }
    assert!(length(folder.path()) <= 65 << 20, "{}", length(folder.path()));
    replay(&*store, &ask(999, "order 110", "order 110")).await;
}

#[tokio::test]
async fn what_is_empty_is_given_back_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let limits = MemoryLimits { records_bytes_max: 64 << 20, states_max: 1000 };
    let store = File::open(folder.path(), limits, [7; 32]).expect("a store").store;
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    for owner in 0..24_u128 {
        let name = format!("order {owner}");
        // What stays is what came last, and stands at the end of the file.
        let lane = if owner == 23 { "another lane" } else { "lane" };
        let hold = lead(&*store, &ask(owner, &name, lane)).await;
        let whole = Record { body: Kept::Whole(body.clone()), ..(*record(hold.fence, "")).clone() };
        let ending = Ending::Done { record: Arc::new(whole), unseen: LONG, seen: LONG };
        settle(&*store, &hold, ending).await;
    }
    assert!(length(folder.path()) > 24 << 20);
    assert_eq!(store.forget(key("lane")).await, Ok(23));
    store.close();
    drop(store);
    let store = File::open(folder.path(), limits, [7; 32]).expect("a store").store;
    replay(&*store, &ask(99, "order 23", "another lane")).await;
    assert!(length(folder.path()) < 8 << 20, "{}", length(folder.path()));
}

/// One byte in many places: the store is as it was, or it is set aside as it is, and nothing panics its way out.
#[tokio::test]
async fn a_file_with_a_wrong_byte_is_whole_or_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    in_a_new_life(folder.path(), async |store| {
        for owner in 1..40 {
            let name = format!("order {owner}");
            let hold = lead(store, &ask(owner, &name, &name)).await;
            settle(store, &hold, done(&hold, &name.repeat(100))).await;
        }
    })
    .await;
    let sound = fs::read(database(folder.path())).unwrap();
    let (mut aside, mut whole) = (0, 0);
    for step in 0..60 {
        let at = step * sound.len() / 60 + step % 97;
        let mut bytes = sound.clone();
        bytes[at] ^= 0x41;
        let other = tempfile::tempdir().unwrap();
        fs::write(database(other.path()), &bytes).unwrap();
        match File::open(other.path(), LIMITS, [7; 32]) {
            Ok(Opened { store, damaged: None, .. }) => {
                for owner in 1..40 {
                    let name = format!("order {owner}");
                    let kept = replay(&*store, &ask(99, &name, &name)).await;
                    assert_eq!(kept.body, record(kept.fence, &name.repeat(100)).body, "byte {at}");
                }
                whole += 1;
            }
            Ok(Opened { store, damaged: Some(damaged), .. }) => {
                let mut kept = fs::read(&damaged.set_aside).unwrap();
                // The database's own note of whether it is open.
                kept[9] = bytes[9];
                assert!(kept == bytes, "byte {at}: the file is kept as it was");
                lead(&*store, &ask(99, "order 1", "order 1")).await;
                aside += 1;
            }
            Err(OpenError::Foreign(_)) => {}
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(aside > 5 && whole > 5, "{aside} set aside, {whole} whole");
}

#[tokio::test]
async fn what_is_no_store_is_set_aside_too_and_fences_rise_across_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = Fence(0);
    for content in [&b"this is not a database"[..], &[0; 10_000], b"x"] {
        fs::write(database(folder.path()), content).unwrap();
        let opened = open(folder.path());
        let damaged = opened.damaged.expect("it is no store");
        assert_eq!(fs::read(&damaged.set_aside).unwrap(), content);
        assert!(damaged.to_string().contains(&damaged.set_aside.display().to_string()));
        let fence = lead(&*opened.store, &ask(1, "a", "order")).await.fence;
        assert!(fence > last);
        last = fence;
    }
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains(".damaged-")).count(), 3);
}

#[tokio::test]
async fn a_file_that_ends_too_soon_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    in_a_new_life(folder.path(), async |store| {
        let hold = lead(store, &ask(1, "a", "order")).await;
        settle(store, &hold, done(&hold, &"1001".repeat(10_000))).await;
    })
    .await;
    let file = fs::OpenOptions::new().write(true).open(database(folder.path())).unwrap();
    file.set_len(length(folder.path()) / 2).unwrap();
    let opened = open(folder.path());
    assert!(opened.damaged.is_some());
    lead(&*opened.store, &ask(2, "a", "order")).await;
}

#[test]
fn one_process_at_a_time_and_only_its_user_may_look() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("down");
    let first = open(&path).store;
    let refused = File::open(&path, LIMITS, [7; 32]).err().expect("it is in use");
    assert!(matches!(&refused, OpenError::InUse(used) if *used == path), "{refused}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&database(&path))), (0o700, 0o600));
    drop(first);
    fs::set_permissions(database(&path), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(open(&path).store.secret(), [7; 32]);
    assert_eq!(mode(&database(&path)), 0o600);
}

#[test]
fn the_secret_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |candidate| File::open(folder.path(), LIMITS, candidate).expect("a store").store.secret();
    assert_eq!([secret([1; 32]), secret([2; 32]), secret([3; 32])], [[1; 32]; 3]);
}

#[test]
fn a_place_that_is_no_folder_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let refused = File::open(&path, LIMITS, [7; 32]).err().expect("it is no folder").to_string();
    assert!(refused.starts_with(&format!("the store {} cannot be used: ", path.display())), "{refused}");
}

#[tokio::test]
async fn a_store_that_is_closed_lets_nobody_lead_or_wait() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).store;
    let hold = lead(&*store, &ask(1, "a", "order a")).await;
    store.close();
    let before = Instant::now();
    assert!(store.claim(&ask(2, "b", "order b")).await.is_err());
    assert!(store.settle(&hold, done(&hold, "1001")).await.is_err());
    assert!(before.elapsed() < Duration::from_secs(5));
}
