//! What a snapshot costs, and what pruning leaves.

use std::fs;
use std::os::unix::fs::FileExt;

use mooring_snapshot::{Pruned, SnapshotError, SnapshotStore};

use crate::support::{Place, tree};

fn noise(size: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_second_snapshot_costs_what_changed() {
    let place = Place::new();
    let one = place.near("one");
    for number in 0..200_u8 {
        fs::create_dir_all(one.path.join(format!("d{}", number % 10))).unwrap();
        fs::write(one.path.join(format!("d{}/f{number}", number % 10)), noise(5000, number)).unwrap();
    }
    let first = place.take(&one, "1").await;
    assert!(first.added_bytes > 1_000_000, "{first:?}");
    assert_eq!(place.take(&one, "2").await.added_bytes, 0, "nothing changed");
    fs::write(one.path.join("d3/f3"), noise(5000, 250)).unwrap();
    let third = place.take(&one, "3").await;
    assert!((5000..10_000).contains(&third.added_bytes), "{third:?}");
}

#[tokio::test]
async fn a_large_file_with_something_put_in_shares_the_rest() {
    let place = Place::new();
    let one = place.near("one");
    let content = noise(8 << 20, 1);
    fs::write(one.path.join("big"), &content).unwrap();
    place.take(&one, "1").await;
    fs::write(one.path.join("big"), [b"at the beginning", content.as_slice()].concat()).unwrap();
    let second = place.take(&one, "2").await;
    assert!(second.added_bytes < 2 << 20, "{second:?}");
}

#[tokio::test]
async fn a_change_that_hides_behind_an_old_time_is_seen() {
    let place = Place::new();
    let one = place.near("one");
    let file = fs::File::create(one.path.join("f")).unwrap();
    file.write_all_at(b"old", 0).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    // Long enough for the file to be remembered.
    std::thread::sleep(std::time::Duration::from_millis(120));
    let first = place.take(&one, "1").await;
    file.write_all_at(b"new", 0).unwrap();
    file.set_modified(time).unwrap();
    assert_ne!(place.take(&one, "2").await.digest, first.digest);
}

#[tokio::test]
async fn pruning_leaves_what_a_snapshot_needs_and_nothing_else() {
    let place = Place::new();
    let one = place.near("one");
    fs::write(one.path.join("stays"), noise(300_000, 1)).unwrap();
    fs::write(one.path.join("goes"), noise(300_000, 2)).unwrap();
    place.take(&one, "old").await;
    fs::remove_file(one.path.join("goes")).unwrap();
    fs::write(one.path.join("comes"), noise(2 << 20, 3)).unwrap();
    let expected = tree(&one.path);
    place.take(&one, "new").await;

    assert_eq!(place.store.prune(&[]).unwrap(), Pruned::default(), "all is needed");
    place.store.remove("old").unwrap();
    let pruned = place.store.prune(&[]).unwrap();
    assert!(pruned.bytes > 300_000, "{pruned:?}");
    let copy = place.near("copy");
    place.store.restore("new", &copy).await.unwrap();
    assert_eq!(tree(&copy.path), expected);

    // What was remembered of the workspace does not name what is gone.
    fs::write(one.path.join("goes"), noise(300_000, 2)).unwrap();
    let expected = tree(&one.path);
    place.take(&one, "again").await;
    let copy = place.near("copy-2");
    place.store.restore("again", &copy).await.unwrap();
    assert_eq!(tree(&copy.path), expected);

    for id in ["new", "again"] {
        place.store.remove(id).unwrap();
    }
    place.store.prune(&[]).unwrap();
    let size = fs::metadata(place.home.path().join("store/snapshots.db")).unwrap().len();
    assert!(size < 200_000, "{size}");
}

#[tokio::test]
async fn a_file_that_looks_like_a_directorys_list_hides_nothing_from_pruning() {
    let place = Place::new();
    // The list of `d`, as the store keeps it, as the content of a file beside it.
    let one = place.near("one");
    fs::create_dir(one.path.join("d")).unwrap();
    fs::write(one.path.join("d/f"), "content that must stay").unwrap();
    place.take(&one, "1").await;
    let objects = all_objects(&place);
    for (number, object) in objects.iter().enumerate() {
        fs::write(one.path.join(format!("a{number}")), object).unwrap();
    }
    place.take(&one, "2").await;
    place.store.remove("1").unwrap();
    place.store.prune(&[]).unwrap();
    let copy = place.near("copy");
    place.store.restore("2", &copy).await.unwrap();
    assert_eq!(tree(&copy.path), tree(&one.path));
}

fn all_objects(place: &Place) -> Vec<Vec<u8>> {
    let conn = rusqlite::Connection::open(place.home.path().join("store/snapshots.db")).unwrap();
    let mut query = conn.prepare("SELECT size, data FROM object").unwrap();
    let rows = query.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    rows.map(|row| {
        let (size, data) = row.unwrap();
        if data.len() == size as usize { data } else { zstd::bulk::decompress(&data, size as usize).unwrap() }
    })
    .collect()
}

#[tokio::test]
async fn what_was_tampered_with_is_told_and_not_restored() {
    let place = Place::new();
    let one = place.near("one");
    fs::write(one.path.join("f"), "some text").unwrap();
    place.take(&one, "s").await;
    let conn = rusqlite::Connection::open(place.home.path().join("store/snapshots.db")).unwrap();
    let changed = conn.execute(
        "UPDATE object SET data = CAST('other tex' AS BLOB) WHERE data = CAST('some text' AS BLOB)",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
    let copy = place.near("copy");
    let told = place.store.restore("s", &copy).await.unwrap_err();
    assert!(matches!(told, SnapshotError::Damaged { .. }), "{told}");
    assert!(place.store.prune(&[]).is_ok(), "content is not looked into");
}

#[tokio::test]
async fn many_take_snapshots_at_once_while_one_prunes() {
    let place = Place::new();
    let store = place.home.path().join("store");
    let mut taking = Vec::new();
    for number in 0..6_u8 {
        let dir = place.near(&format!("w{number}"));
        let store = SnapshotStore::open(&store).unwrap();
        taking.push(tokio::spawn(async move {
            for round in 0..8_u8 {
                fs::write(dir.path.join("shared"), noise(100_000, round)).unwrap();
                fs::write(dir.path.join("own"), noise(1000, number)).unwrap();
                let id = format!("{number}-{round}");
                let new = mooring_snapshot::NewSnapshot { id: id.clone(), ..Default::default() };
                store.take(&dir, new).await.unwrap();
                if round % 2 == 0 {
                    store.remove(&id).unwrap();
                }
            }
            (number, tree(&dir.path), dir)
        }));
    }
    for _ in 0..10 {
        let store = place.store.clone();
        tokio::task::spawn_blocking(move || store.prune(&[])).await.unwrap().unwrap();
    }
    for task in taking {
        let (number, expected, _dir) = task.await.unwrap();
        let copy = place.near(&format!("copy{number}"));
        place.store.restore(&format!("{number}-7"), &copy).await.unwrap();
        let without_times = |tree: std::collections::BTreeMap<std::path::PathBuf, String>| {
            tree.into_iter()
                .map(|(path, text)| (path, text.split(" 644").next().unwrap().to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(without_times(tree(&copy.path)), without_times(expected), "{number}");
    }
}
