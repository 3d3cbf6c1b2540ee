//! What comes back is what was saved, whichever way it went.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use mooring_snapshot::{NewSnapshot, SnapshotError};
use proptest::prelude::*;

use crate::support::{Dir, Place, on_disk, tree};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}

/// One thing to make.
#[derive(Debug, Clone)]
struct Thing {
    path: Vec<String>,
    kind: u8,
    size: usize,
    seed: u8,
    mode: u32,
    seconds: u64,
    nanos: u32,
}

fn thing() -> impl Strategy<Value = Thing> {
    let name =
        prop_oneof!["[a-d]", "[a-d]", "[a-d]", Just("with space".to_owned()), Just("ünïcödé\n".to_owned())];
    let size = prop_oneof![Just(0), 1..2000_usize, 60_000..70_000_usize, 300_000..1_200_000_usize];
    (
        prop::collection::vec(name, 1..4),
        0..7_u8,
        size,
        any::<u8>(),
        0..0o2000_u32,
        0..4_000_000_000_u64,
        0..1_000_000_000_u32,
    )
        .prop_map(|(path, kind, size, seed, mode, seconds, nanos)| Thing {
            path,
            kind,
            size,
            seed,
            mode,
            seconds,
            nanos,
        })
}

/// Bytes that neither repeat nor compress.
fn noise(size: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn build(root: &Path, things: &[Thing]) {
    let mut made = Vec::new();
    for thing in things {
        let path = thing.path.iter().fold(root.to_owned(), |path, name| path.join(name));
        let above = path.parent().unwrap();
        if fs::create_dir_all(above).is_err() || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match thing.kind {
            0 => fs::create_dir(&path).unwrap(),
            1 | 2 => fs::write(&path, noise(thing.size, thing.seed)).unwrap(),
            3 => symlink(format!("/absolute/{}/../x", thing.seed), &path).unwrap(),
            4 => {
                let Some(first) = made.iter().find(|path: &&std::path::PathBuf| path.is_file()) else {
                    continue;
                };
                fs::hard_link(first, &path).unwrap();
            }
            5 => {
                use rustix::fs::{CWD, FileType, Mode, mknodat};
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
            }
            _ => {
                let file = fs::File::create(&path).unwrap();
                file.set_len(4_000_000).unwrap();
                file.write_all_at(&noise(thing.size.min(200_000), thing.seed), 1_000_000).unwrap();
            }
        }
        if !path.is_symlink() {
            // Directories stay open for those who build; the rest of the bits is theirs.
            let open = if path.is_dir() { 0o700 } else { 0o400 };
            fs::set_permissions(&path, fs::Permissions::from_mode(thing.mode & 0o1777 | open)).unwrap();
        }
        made.push(path);
    }
    for (path, thing) in made.iter().zip(things).rev() {
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            last_modification: rustix::fs::Timespec {
                tv_sec: thing.seconds as i64,
                tv_nsec: thing.nanos.into(),
            },
        };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_comes_back_and_has_one_digest(
        things in prop::collection::vec(thing(), 0..25),
        more in prop::collection::vec(thing(), 0..10),
    ) {
        run(async {
            let place = Place::new();
            let (near, far) = (place.near("one"), place.far("one"));
            build(&near.path, &things);
            let first = place.take(&near, "1").await;
            assert_eq!(place.take(&far, "2").await.digest, first.digest, "the way it was read");
            let copy = place.near("copy");
            place.store.restore("1", &copy).await.unwrap();
            assert_eq!(tree(&copy.path), tree(&near.path));
            assert_eq!(place.take(&copy, "3").await.digest, first.digest, "the copy");

            // A second time, on top of what is remembered.
            build(&near.path, &more);
            let second = place.take(&near, "4").await;
            assert_eq!(place.take(&far, "5").await.digest, second.digest, "what is remembered");
            let again = place.near("again");
            place.store.restore("4", &again).await.unwrap();
            assert_eq!(tree(&again.path), tree(&near.path));
        });
    }
}

#[tokio::test]
async fn holes_stay_holes() {
    let place = Place::new();
    let one = place.near("one");
    let file = fs::File::create(one.path.join("holes")).unwrap();
    file.set_len(1 << 30).unwrap();
    file.write_all_at(&noise(10_000, 1), 500 << 20).unwrap();
    place.take(&one, "s").await;
    let copy = place.near("copy");
    place.store.restore("s", &copy).await.unwrap();
    assert!(on_disk(&copy.path.join("holes")) < 1 << 20, "{}", on_disk(&copy.path.join("holes")));
    assert_eq!(tree(&copy.path), tree(&one.path));
}

#[tokio::test]
async fn a_snapshot_says_what_it_holds() {
    let place = Place::new();
    let one = place.near("one");
    fs::write(one.path.join("f"), "hello").unwrap();
    fs::hard_link(one.path.join("f"), one.path.join("g")).unwrap();
    fs::create_dir(one.path.join("d")).unwrap();
    let taken = place.take(&one, "s").await;
    assert_eq!((taken.files, taken.bytes, taken.session.as_str()), (2, 5, "dir"));
    assert_eq!((taken.manifest_digest.as_str(), taken.taken_ms), ("m", 1));
    assert_eq!(place.store.list().unwrap(), std::slice::from_ref(&taken));
    assert_eq!(place.store.get("s").unwrap(), taken);
    let missing = place.store.get("t").unwrap_err();
    assert!(matches!(missing, SnapshotError::Unknown { .. }), "{missing}");
}

#[tokio::test]
async fn an_id_that_is_taken_is_refused_unless_it_is_taken_again_on_purpose() {
    let place = Place::new();
    let one = place.near("one");
    let new = |replaces| NewSnapshot { id: "s".into(), replaces, ..NewSnapshot::default() };
    // Of several at once, one wins.
    let (first, second, third) = tokio::join!(
        place.store.take(&one, new(false)),
        place.store.take(&one, new(false)),
        place.store.take(&one, new(false))
    );
    let mut all = vec![first, second, third];
    let won = all.extract_if(.., |taken| taken.is_ok()).collect::<Vec<_>>();
    assert_eq!((won.len(), all.len()), (1, 2));
    for refused in all {
        let told = refused.unwrap_err();
        assert!(matches!(&told, SnapshotError::Exists { id } if id == "s"), "{told}");
    }
    let kept = place.store.get("s").unwrap();
    fs::write(one.path.join("f"), "other").unwrap();
    assert!(place.store.take(&one, new(false)).await.is_err());
    assert_eq!(place.store.get("s").unwrap(), kept);
    let again = place.store.take(&one, new(true)).await.unwrap();
    assert_ne!(again.digest, kept.digest);
    assert_eq!(place.store.get("s").unwrap(), again);
}

#[tokio::test]
async fn a_workspace_that_cannot_be_read_gives_no_snapshot() {
    let place = Place::new();
    for near in [true, false] {
        let gone = Dir { path: place.home.path().join("nowhere"), near, of: None };
        let refused = place.store.take(&gone, NewSnapshot { id: "s".into(), ..Default::default() }).await;
        assert!(refused.is_err());
        assert_eq!(place.store.list().unwrap(), []);
    }
}

#[tokio::test]
async fn what_lies_outside_is_never_read() {
    let place = Place::new();
    let one = place.near("one");
    fs::write(place.home.path().join("secret"), "secret").unwrap();
    symlink("../secret", one.path.join("link")).unwrap();
    symlink("..", one.path.join("up")).unwrap();
    let taken = place.take(&one, "s").await;
    assert_eq!((taken.files, taken.bytes), (0, 0));
}
