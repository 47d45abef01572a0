//! What the plugin and a payload could do if they were taken over.

use crate::host;
use nspawn_tests::{Alloc, Job, Rig, product, wait};
use proto::limits::DISK_FIRST;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Where the agent keeps its data; 0700 is Nomad's own choice.
const DATA: &str = "/var/lib/nomad";
/// First uid that any range may begin with.
const RANGE_FIRST: u32 = 524_288;

/// Makes a set-uid copy of id(1) in every place that a payload can write to, tries what only the
/// host's root may do, and waits. A Debian image, because busybox drops a set-uid bit by itself.
const JOB: &str = r#"
job "@name@" {
  type = "batch"
  group "g" {
    restart { attempts = 0 }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "t" {
      driver       = "nspawn"
      kill_timeout = "1s"
      kill_signal  = "SIGKILL"
      config {
        image     = "debian"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "@script@"]
      }
      template {
        data        = "only for root"
        destination = "secrets/token"
        perms       = "600"
      }
      resources {
        cpu    = 20
        memory = 32
      }
    }
  }
}
"#;

const SCRIPT: &str = "umask 0; for d in /alloc /local /; do cp /usr/bin/id $d/suid-id && \
    chmod 4755 $d/suid-id; done; mknod /alloc/disk b 7 0; mknod /disk b 7 0; \
    mount -o remount,suid,dev /alloc; echo 1 >/proc/sys/kernel/panic_on_oops; \
    swapoff -a; chown 4294967294 /local; echo token: $(cat /secrets/token); \
    stat -c %u:%a /alloc/suid-id /local/suid-id /suid-id; echo done; exec sleep 600";

/// Fields of a process's status.
fn field(rig: &Rig, path: &str, name: &str) -> String {
    let status = String::from_utf8(rig.read_file(path).unwrap()).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn p32_the_plugin_has_no_power_and_cannot_get_any() {
    let rig = host();
    let uid = rig.run(&["id", "-u", "nomad-nspawn"]).unwrap();
    let gid = rig.run(&["id", "-g", "nomad-nspawn"]).unwrap();
    assert!(uid != "0" && gid != "0");
    let pids = rig.run(&["pgrep", "-f", &format!("^{}", product::PLUGIN)]).unwrap();
    assert!(!pids.is_empty());
    let mut threads = 0;
    for pid in pids.lines() {
        // Every thread: the C library's setuid reaches only those that exist.
        for thread in rig.run(&["ls", &format!("/proc/{pid}/task")]).unwrap().lines() {
            let path = format!("/proc/{pid}/task/{thread}/status");
            let read = |name| field(rig, &path, name);
            assert_eq!(read("Uid"), [uid.as_str(); 4].join(" "));
            assert_eq!(read("Gid"), [gid.as_str(); 4].join(" "));
            assert!(["", gid.as_str()].contains(&read("Groups").as_str()), "{}", read("Groups"));
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(read(set), "0000000000000000", "{set} of {path}");
            }
            assert_eq!((read("NoNewPrivs"), read("Seccomp")), ("1".to_owned(), "2".to_owned()));
            threads += 1;
        }
    }
    let nodes = rig.api().get("/v1/nodes?resources=false").unwrap();
    let node = rig.api().get(&format!("/v1/node/{}", nodes[0]["ID"].as_str().unwrap())).unwrap();
    let told = node["Attributes"]["driver.nspawn.sandbox"].as_str().unwrap();
    assert!(told.starts_with(&format!("uid {uid}, ")) && told.ends_with(", seccomp"), "{told}");
    println!("plugin: {threads} threads, {told}");
    // With these it cannot become root: not by itself, not through a set-uid program.
    rig.sh("cp /usr/bin/id /opt/suid-id && chmod 4755 /opt/suid-id").unwrap();
    let plain = effective_uid(rig, "/opt/suid-id");
    assert_eq!(plain, Some(0), "set-uid programs do not work on this host at all");
    let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
    let bound = ["setpriv", &uid, &gid, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"];
    let tried = [&bound[..], &["--no-new-privs", "/opt/suid-id", "-u"]].concat();
    assert_ne!(rig.run(&tried).unwrap(), "0");
    rig.run(&["rm", "/opt/suid-id"]).unwrap();
}

/// A running task that has left its set-uid files everywhere.
struct Intruder {
    job: Job,
    alloc: Alloc,
    unit: String,
    leader: String,
    output: String,
}

impl Intruder {
    fn start(rig: &Rig, name: &str) -> Self {
        let hcl = JOB.replace("@name@", name).replace("@script@", SCRIPT);
        let job = rig.run_job(&hcl).unwrap();
        let alloc = job.alloc().unwrap();
        let output = alloc.wait_logs("t", "stdout", LIMIT, |out| out.ends_with(b"done\n"));
        let output = String::from_utf8(output.unwrap()).unwrap();
        let id = format!("nomad-nspawn-{}-*", alloc.id.replace('-', ""));
        let list = rig.run(&["systemctl", "list-units", "--plain", "--no-legend", &id]).unwrap();
        let unit = list.split(' ').next().unwrap().to_owned();
        let main = rig.main_pid(&unit).unwrap();
        let children = rig.read_file(&format!("/proc/{main}/task/{main}/children")).unwrap();
        let leader = String::from_utf8(children).unwrap().trim().to_owned();
        Self { job, alloc, unit, leader, output }
    }

    /// The set-uid files as the host sees them.
    fn files(&self) -> [String; 3] {
        let dir = format!("{DATA}/alloc/{}", self.alloc.id);
        let unit = self.unit.strip_prefix("nomad-nspawn-").unwrap();
        let unit = unit.strip_suffix(".service").unwrap();
        [
            format!("{dir}/alloc/suid-id"),
            format!("{dir}/t/local/suid-id"),
            format!("/var/lib/nomad-nspawn/{unit}/upper/suid-id"),
        ]
    }
}

/// What another account gets from running a file: its effective uid, or nothing.
fn effective_uid(rig: &Rig, file: &str) -> Option<u32> {
    // By a shell: setpriv itself still has its capabilities when it walks to the file.
    let out = rig.exec_as(1000, &["sh", "-c", "\"$0\" -u", file]).unwrap();
    out.success().then(|| out.text().trim().parse().unwrap())
}

fn owner(rig: &Rig, file: &str) -> (u32, String) {
    let stat = rig.run(&["stat", "-c", "%u %a", file]).unwrap();
    let (uid, mode) = stat.split_once(' ').unwrap();
    (uid.parse().unwrap(), mode.to_owned())
}

/// The uid range that the payload's own map names.
fn assert_mapped_away(rig: &Rig, task: &Intruder) -> u32 {
    let path = |name: &str| format!("/proc/{}/{name}", task.leader);
    let mut base = 0;
    for map in ["uid_map", "gid_map"] {
        let text = String::from_utf8(rig.read_file(&path(map)).unwrap()).unwrap();
        let numbers: Vec<u32> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!((numbers.len(), numbers[0], numbers[2]), (3, 0, 65_536), "{map}: {text}");
        assert!(numbers[1] >= RANGE_FIRST && numbers[1].is_multiple_of(65_536), "{map}: {text}");
        base = numbers[1];
    }
    assert_eq!(field(rig, &path("status"), "Uid"), vec![base.to_string(); 4].join(" "));
    // Its capabilities count in its own user namespace alone.
    let space = |pid: &str| rig.run(&["readlink", &format!("/proc/{pid}/ns/user")]).unwrap();
    assert_ne!(space(&task.leader), space("1"));
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let space = |pid: &str| rig.run(&["readlink", &format!("/proc/{pid}/ns/{kind}")]).unwrap();
        assert_ne!(space(&task.leader), space("1"), "{kind} namespace is the host's");
    }
    base
}

fn assert_powerless(rig: &Rig, task: &Intruder) {
    // Nothing of the launcher's or systemd-nspawn's is open in it.
    let open = rig.run(&["ls", &format!("/proc/{}/fd", task.leader)]).unwrap();
    assert_eq!(open.lines().collect::<Vec<_>>(), ["0", "1", "2"]);
    // The last of them to be tried; the stream is collected apart from the other.
    let last = |text: &[u8]| text.windows(6).any(|word| word == b"chown:");
    let errors = task.alloc.wait_logs("t", "stderr", LIMIT, last);
    let errors = String::from_utf8(errors.unwrap()).unwrap();
    for tried in ["mknod: /alloc/disk", "mknod: /disk", "mount:", "panic_on_oops", "chown:"] {
        assert!(errors.contains(tried), "the payload could do what {tried} stands for:\n{errors}");
    }
    for file in [format!("{DATA}/alloc/{}/alloc/disk", task.alloc.id), "/disk".to_owned()] {
        assert!(!rig.exists(&file), "{file}");
    }
}

fn assert_secret(rig: &Rig, task: &Intruder) {
    assert!(task.output.contains("token: only for root\n"), "{}", task.output);
    let file = format!("{DATA}/alloc/{}/t/secrets/token", task.alloc.id);
    assert_eq!(owner(rig, &file), (0, "600".to_owned()));
    let plugin = rig.run(&["id", "-u", "nomad-nspawn"]).unwrap().parse().unwrap();
    for uid in [1000, 65_534, plugin] {
        assert!(!rig.exec_as(uid, &["cat", &file]).unwrap().success(), "uid {uid} reads {file}");
    }
}

/// First in the layout that Nomad makes, then in one where anybody may walk into the data
/// directory.
#[test]
fn p07_p17_p18_a_set_uid_file_of_a_payload_makes_nobody_root() {
    let rig = host();
    assert_eq!(owner(rig, DATA), (0, "700".to_owned()));
    let task = Intruder::start(rig, "protected");
    let base = assert_mapped_away(rig, &task);
    assert_powerless(rig, &task);
    assert_secret(rig, &task);
    let [alloc, local, root] = task.files();
    // Here the payload's root is root on the disk: only the directory above stands between.
    assert_eq!(owner(rig, &alloc), (0, "4755".to_owned()));
    assert_eq!(owner(rig, &local), (0, "4755".to_owned()));
    assert_eq!(owner(rig, &root), (base, "4755".to_owned()));
    let through = format!("/proc/{}/root/suid-id", task.leader);
    for file in [&alloc, &local, &root, &through] {
        assert_eq!(effective_uid(rig, file), None, "{file}");
    }
    task.job.purge().unwrap();

    rig.run(&["chmod", "0755", DATA]).unwrap();
    let task = Intruder::start(rig, "open");
    let base = assert_mapped_away(rig, &task);
    assert_powerless(rig, &task);
    assert_secret(rig, &task);
    let [alloc, local, root] = task.files();
    let mut reached = 0;
    for (file, on_disk) in [(&alloc, DISK_FIRST), (&local, DISK_FIRST), (&root, base)] {
        assert_eq!(owner(rig, file), (on_disk, "4755".to_owned()), "{file}");
        let uid = effective_uid(rig, file);
        assert!(uid.is_none_or(|uid| uid == on_disk), "{file} made user 1000 uid {uid:?}");
        reached += usize::from(uid.is_some());
    }
    assert!(reached > 0, "no file could be reached: this layout is not the open one");
    task.job.purge().unwrap();
    rig.run(&["chmod", "0700", DATA]).unwrap();
    wait::true_within("the data directory to be closed", LIMIT, || {
        Ok(owner(rig, DATA) == (0, "700".to_owned()))
    })
    .unwrap();
}
