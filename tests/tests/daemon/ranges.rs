//! Uid ranges that a job names itself: one allocation at a time, locked with systemd-nspawn's own
//! lock file, known again after the helper's death.

use crate::{alone, host, next_life, refused, removed, started, status};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nspawn_tests::Rig;
use nspawn_tests::hostile::Handmade;
use proto::error::Code;
use proto::task_spec::{TaskSpec, Users};
use proto::wire::Task;

const SLEEP: [&str; 2] = ["/bin/sleep", "1000"];

fn fixed(mut spec: TaskSpec, base: u32, width: u32) -> TaskSpec {
    spec.users = Users::Fixed { base, width };
    spec
}

fn lock(base: u32) -> String {
    format!("/run/systemd/nspawn-uid/{base}")
}

fn map(rig: &Rig, task: &Task) -> String {
    let path = format!("/proc/{}/uid_map", task.leader.unwrap());
    let text = String::from_utf8(rig.read_file(&path).unwrap()).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_fixed_range_belongs_to_one_allocation_through_the_helpers_death() {
    const BASE: u32 = 16 * 65_536;
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let [one, other] = [(); 2].map(|()| Handmade::new(rig, "fixed").unwrap());
    let task = started(&client, &fixed(one.spec(&SLEEP).unwrap(), BASE, 65_536));
    assert_eq!(task.uid_base, Some(BASE));
    assert_eq!(map(rig, &task), format!("0 {BASE} 65536"));
    assert!(rig.exists(&lock(BASE)));

    let client = next_life(rig);
    assert_eq!(status(&client, &one.key).uid_base, Some(BASE));
    let refusal = refused(&client, &fixed(other.spec(&SLEEP).unwrap(), BASE, 65_536));
    assert_eq!(refusal.code, Code::Busy, "{refusal}");
    assert!(refusal.reason.contains(&one.key.alloc.to_string()), "{refusal}");

    // A second task of the allocation shares it, also when it leaves the choice to the helper.
    let mut picks = one.spec(&SLEEP).unwrap();
    picks.key = one.add_task("second").unwrap();
    picks.key.instance = proto::name::Instance(2);
    assert_eq!(started(&client, &picks).uid_base, Some(BASE));
    removed(&client, &one.key);
    assert!(rig.exists(&lock(BASE)), "the lock went with the first of two tasks");
    let refusal = refused(&client, &fixed(other.spec(&SLEEP).unwrap(), BASE, 65_536));
    assert_eq!(refusal.code, Code::Busy, "{refusal}");
    removed(&client, &picks.key);
    assert!(!rig.exists(&lock(BASE)));

    // Smaller than a whole range, and free again.
    let task = started(&client, &fixed(other.spec(&SLEEP).unwrap(), BASE, 1000));
    assert_eq!(map(rig, &task), format!("0 {BASE} 1000"));
    let client = next_life(rig);
    assert_eq!(status(&client, &other.key).uid_base, Some(BASE));
    other.remove(&client).unwrap();
    one.remove(&client).unwrap();
    host.world.assert_same(rig).unwrap();
}

#[test]
fn a_fixed_range_that_another_program_has_is_refused() {
    const BASE: u32 = 17 * 65_536;
    let (_life, rig, client) = host();
    let file = rig.open(&lock(BASE), OFlag::O_RDWR | OFlag::O_CREAT, 0o600).unwrap();
    let whole = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_WRLCK).unwrap(),
        l_whence: i16::try_from(nix::libc::SEEK_SET).unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
    let task = Handmade::new(rig, "taken").unwrap();
    let spec = fixed(task.spec(&SLEEP).unwrap(), BASE, 65_536);
    let refusal = refused(&client, &spec);
    assert_eq!(refusal.code, Code::Busy, "{refusal}");
    assert!(refusal.reason.contains(&lock(BASE)), "{refusal}");
    drop(file);
    started(&client, &spec);
    task.remove(&client).unwrap();
    assert!(!rig.exists(&lock(BASE)));
}

#[test]
fn the_hosts_own_ids_and_ranges_off_the_grid_have_no_lock() {
    let (_alone, host, mut client) = alone();
    let rig = &host.rig;
    let task = Handmade::new(rig, "unlocked").unwrap();
    let mut spec = task.spec(&SLEEP).unwrap();
    for (number, users, base, expected) in [
        (1, Users::Identity, Some(0), "0 0 65536"),
        (2, Users::Host, None, "0 0 4294967295"),
        (3, Users::Fixed { base: 1_000_000, width: 65_536 }, Some(1_000_000), "0 1000000 65536"),
    ] {
        spec.users = users;
        spec.key.instance = proto::name::Instance(number);
        let started = started(&client, &spec);
        assert_eq!(started.uid_base, base, "{users:?}");
        assert_eq!(map(rig, &started), expected, "{users:?}");
        client = next_life(rig);
        assert_eq!(status(&client, &spec.key).uid_base, base, "{users:?}");
        removed(&client, &spec.key);
    }
    task.remove(&client).unwrap();
    host.world.assert_same(rig).unwrap();
}
