//! What plain tools see of each kind of storage.

use serde_json::json;

use crate::support::{ACCOUNT, Bench, Server, manifest, s3, s3_keys, strategy};

const FILL: &str = "
put('readme.txt', b'hello from a bucket\\n')
put('train/a.csv', b'1,2\\n3,4\\n')
put('train/deep/er/b.bin', bytes(range(256)))
put('with space and \u{00fc}.txt', b'x')
put('empty')
";

const SEEN: &str = "\
./empty 0
./readme.txt 20
./train/a.csv 8
./train/deep/er/b.bin 256
./with space and \u{00fc}.txt 1
";

async fn holds_what_was_put(bench: &Bench) {
    assert_eq!(bench.said("cd m && find . -type f -printf '%p %s\\n' | LC_ALL=C sort").await, SEEN);
    assert_eq!(bench.said("cat m/readme.txt").await, "hello from a bucket\n");
    assert_eq!(bench.said("ls m/train").await, "a.csv\ndeep\n");
    let bytes = "python3 -c 'print(open(\"m/train/deep/er/b.bin\",\"rb\").read()==bytes(range(256)))'";
    assert_eq!(bench.said(bytes).await, "True\n");
    let tar = "tar cf /tmp/t.tar -C m . && mkdir /tmp/t && tar xf /tmp/t.tar -C /tmp/t && diff -r m /tmp/t && echo same";
    assert_eq!(bench.said(tar).await, "same\n");
    assert_eq!(bench.run("cat m/nothing").await.code, 1);
    assert_eq!(bench.told(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_bucket() {
    let server = Server::s3();
    server.python(FILL);
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    holds_what_was_put(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r2_bucket() {
    let server = Server::s3();
    server.python(FILL);
    let entry = json!({
        "type": "r2_mount", "bucket": "data", "account_id": "account", "custom_domain": server.url,
        "mount_strategy": strategy(),
    });
    holds_what_was_put(&Bench::new(manifest(entry, s3_keys())).await).await;
}

/// With the keys that Google gives for its interface in the manner of S3, and without any. Which server answers is not
/// Google's: what is seen is that the requests are those that an S3 understands.
#[tokio::test(flavor = "multi_thread")]
async fn gcs_bucket() {
    let server = Server::s3();
    server.python(FILL);
    let entry = json!({
        "type": "gcs_mount", "bucket": "data", "endpoint_url": server.url, "mount_strategy": strategy(),
    });
    let hmac = json!({ "credentials": { "access_id": "id", "secret_access_key": "key" } });
    holds_what_was_put(&Bench::new(manifest(entry.clone(), hmac)).await).await;
    let anonymous = Bench::new(manifest(entry.clone(), json!({}))).await;
    let denied = anonymous.run("cat m/readme.txt").await;
    assert!(denied.err.contains("Permission denied"), "nobody is asked to be anybody: {denied:?}");
    server.python("for key in keys(): store.put_object_acl(Bucket='data', Key=key, ACL='public-read')");
    holds_what_was_put(&Bench::new(manifest(entry, json!({}))).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_container() {
    let server = Server::azure();
    server.python(&format!("# azure\n{FILL}"));
    let entry = json!({
        "type": "azure_blob_mount", "account": ACCOUNT, "container": "data",
        "endpoint": format!("{}/{ACCOUNT}", server.url), "mount_strategy": strategy(),
    });
    let options = json!({ "credentials": { "account_key": "azure" } });
    holds_what_was_put(&Bench::new(manifest(entry, options)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_all_that_is_seen() {
    let server = Server::s3();
    server.python("put('secret.txt', b'no')\nput('in/side/a', b'1')\nput('in/sideways', b'2')");
    let mut entry = s3(&server.url);
    entry["prefix"] = json!("in/side/");
    let bench = Bench::new(manifest(entry, s3_keys())).await;
    assert_eq!(bench.said("find m -type f").await, "m/a\n");
    assert_ne!(bench.run("cat m/../m/../secret.txt m/sideways").await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_read_in_pieces_and_from_anywhere() {
    let server = Server::s3();
    let sums = server.python(
        "import random
body = random.Random(7).randbytes(100 * 1024 * 1024 + 17)
put('large', body)
print(hashlib.sha256(body).hexdigest())
for at in (0, 1048575, 77777777, 104857600): print(hashlib.sha256(body[at:at + 4000]).hexdigest())",
    );
    let sums: Vec<&str> = sums.lines().collect();
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    assert_eq!(bench.said("stat -c %s m/large").await, "104857617\n");
    let before = resident();
    assert_eq!(bench.said("sha256sum m/large | cut -c1-64").await.trim(), sums[0]);
    // What is kept of it is bounded, however large it is.
    let grown = resident().saturating_sub(before);
    assert!(grown < 160 << 20, "{} MiB for a file of 100", grown >> 20);
    for (at, sum) in ["0", "1048575", "77777777", "104857600"].iter().zip(&sums[1..]) {
        let read = format!(
            "dd if=m/large bs=1000 count=4 iflag=skip_bytes skip={at} 2>/dev/null | sha256sum | cut -c1-64"
        );
        assert_eq!(bench.said(&read).await.trim(), *sum, "from {at}");
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_objects_are_listed() {
    let server = Server::s3();
    server.python(
        "from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(16) as pool: list(pool.map(lambda n: put(f'many/{n:05}'), range(3000)))",
    );
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    assert_eq!(bench.said("ls m/many | wc -l").await, "3000\n");
    assert_eq!(bench.said("ls -l m/many | tail -1 | grep -c 02999").await, "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_paths_are_said_and_never_lead_out() {
    let server = Server::s3();
    server.python(
        "put('both', b'file')
put('both/below', b'in')
put('mark/')
put('mark/file', b'1')
put('odd/../../escape', b'out')
put('fine/a', b'1')",
    );
    let bench = Bench::new(manifest(s3(&server.url), s3_keys())).await;
    // A directory wins over a file of its name.
    assert_eq!(
        bench.said("ls m/both m/fine m/mark").await,
        "m/both:\nbelow\n\nm/fine:\na\n\nm/mark:\nfile\n"
    );
    let odd = bench.run("ls m/odd").await;
    assert!(odd.code != 0 && odd.out.is_empty(), "{odd:?}");
    let told = bench.told();
    assert!(
        told.iter().any(|line| line.starts_with("mount m: cannot list 'odd': a key in it is no path")),
        "{told:?}"
    );
    assert_eq!(bench.said("ls m/fine").await, "a\n");
}
