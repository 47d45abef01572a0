//! A payload that looks for processes which enter its container, and for a way to the host's files by
//! them.

use super::*;
use proto::exec::SessionReport;

/// Sessions for each value of the setting; `cargo rig soak exec` makes more.
const SESSIONS: u64 = 150;

/// Keeps a handle of each worker's program, and opens it for writing when nobody executes it any more.
const OVERWRITER: &str = r#"
my (%held, $writable); my $kept = 0;
while (1) {
    for my $pid (glob "/proc/[0-9]*") {
        next unless (readlink("$pid/exe") // "") =~ /nomad-nspawn-task/;
        next unless open(my $file, "<", "$pid/exe");
        $kept++; $held{$kept} = $file if $kept <= 50;
    }
    for my $file (values %held) {
        my $path = "/proc/self/fd/" . fileno $file;
        $writable++ if open(my $out, "+<", $path);
        $last = "$!";
    }
    open(my $out, ">", "/local/new"); print $out "$kept ", $writable // 0, " $last\n"; close $out;
    rename "/local/new", "/local/scan";
}
"#;

/// Traces each sleep(1), and never waits for it. It counts them.
const TRACER: &str = r#"
my (%traced, $count);
while (1) {
    for my $pid (map { /([0-9]+)$/ } glob "/proc/[0-9]*") {
        open(my $comm, "<", "/proc/$pid/comm") or next;
        next unless (<$comm> // "") eq "sleep\n" && !$traced{$pid};
        syscall(101, 0x4206, $pid + 0, 0, 0) == 0 or next;
        $traced{$pid} = 1;
        open(my $out, ">", "/local/new"); print $out ++$count, " 0 x\n"; close $out;
        rename "/local/new", "/local/scan";
    }
}
"#;

/// Looks at the descriptors of each process that is about to be a command: how often, how many it should
/// not have, and the last of these.
const DESCRIPTORS: &str = r#"
my ($looks, $bad, $last) = (0, 0, "-");
while (1) {
    for my $pid (map { /([0-9]+)$/ } glob "/proc/[0-9]*") {
        open(my $comm, "<", "/proc/$pid/comm") or next;
        next unless (<$comm> // "") =~ /^nomad-nspawn-ta/;
        opendir(my $fds, "/proc/$pid/fd") or next;
        my @links = map { readlink "/proc/$pid/fd/$_" } readdir $fds;
        my @sockets = grep { /^socket:/ } @links;
        my @others = grep { $_ && !/^(pipe|socket):|^\/dev\/null$/ } @links;
        next unless (readlink("/proc/$pid/exe") // "") =~ /nomad-nspawn-task/;
        $looks++;
        if (@others || @sockets > 1) { $bad++; $last = join ",", @links; }
        open(my $out, ">", "/local/new"); print $out "$looks $bad $last\n"; close $out;
        rename "/local/new", "/local/scan";
    }
}
"#;

/// A Debian whose payload runs a script in perl as root.
pub(super) fn payload_of<'a>(
    rig: &'a Rig,
    client: &Client,
    users: Users,
    script: &str,
) -> Handmade<'a> {
    start(rig, client, (Kind::Command, users), |spec| {
        spec.image = Image::Named(ImageName::new("debian").unwrap());
        let words = ["/usr/bin/perl", "-e", script].map(proto::secret::Secret::new);
        spec.payload = Payload::Command { words: words.into() };
    })
}

/// The numbers that the payload has counted, and its last word.
pub(super) fn scan(client: &Client, task: &Handmade<'_>) -> (u64, u64, String) {
    let text = wait::until("the payload's file", SOON, || {
        let ran = run(client, task, &["cat", "/local/scan"]);
        Ok((ran.code == 0 && !ran.stdout.is_empty()).then_some(ran.stdout))
    });
    let text = text.unwrap();
    let mut words = text.trim_end().splitn(3, ' ');
    let mut number = || words.next().unwrap().parse().unwrap();
    (number(), number(), words.next().unwrap_or_default().to_owned())
}

#[test]
fn p56_nobody_reaches_a_process_that_enters() {
    let (_guard, rig, client) = alone();
    let figures = nspawn_tests::soak::exec::run(rig, &client, SESSIONS).unwrap();
    println!("{figures:?}");
    for (value, looks, reached) in figures.values {
        assert!(looks > 0, "suid_dumpable {value}: the payload has seen none");
        assert_eq!(reached, 0, "suid_dumpable {value}");
    }
}

/// Without a user namespace the payload may look at it, and finds only what the command has.
#[test]
fn p56_a_process_that_enters_has_only_the_commands_descriptors() {
    let (_guard, rig, client) = alone();
    let task = payload_of(rig, &client, Users::Host, DESCRIPTORS);
    for _ in 0..SESSIONS {
        assert_eq!(run(&client, &task, &["/bin/true"]).code, 0);
    }
    let (looks, bad, last) = scan(&client, &task);
    println!("{looks} looks, {bad} with more, last: {last}");
    assert!(looks > 0, "the payload has seen none");
    assert_eq!(bad, 0, "{last}");
    task.remove(&client).unwrap();
}

/// The kernel gives a process that has ended to its tracer first.
#[test]
fn p58_a_tracer_keeps_no_worker() {
    let (_guard, rig, client) = alone();
    let task = payload_of(rig, &client, Users::Pick, TRACER);
    let mut session = open(&client, &command(&task.key, &["/bin/sleep", "3"]));
    assert_eq!(scan(&client, &task).0, 1);
    match session.next_report().unwrap() {
        Some(SessionReport::Failed(refusal)) => {
            assert!(refusal.to_string().contains("traces it"), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    wait_no_leaf(rig, &task);
    // The same where the driver hangs up.
    let session = open(&client, &command(&task.key, &["/bin/sleep", "1000"]));
    wait::true_within("the second one", SOON, || Ok(scan(&client, &task).0 == 2)).unwrap();
    drop(session);
    wait_no_leaf(rig, &task);
    wait::true_within("no worker at work", SOON, || Ok(workers_at_work(rig)? == 0)).unwrap();
    assert_eq!(run(&client, &task, &["/bin/true"]).code, 0);
    task.remove(&client).unwrap();
}

#[test]
fn p58_a_command_that_leaves_its_cgroup_ends_with_its_driver() {
    let (_guard, rig, client) = alone();
    let task = start(rig, &client, (Kind::Command, Users::Pick), |_| {});
    let leave = "trap '' HUP; mkdir /sys/fs/cgroup/away; echo $$ >/sys/fs/cgroup/away/cgroup.procs; \
                 while :; do sleep 1; done";
    let session = open(&client, &command(&task.key, &["sh", "-c", leave]));
    let away = || script(&client, &task, "cat /sys/fs/cgroup/away/cgroup.procs 2>&1 || true");
    wait::true_within("its group", SOON, || {
        Ok(away().lines().any(|line| line.parse::<u32>().is_ok()))
    })
    .unwrap();
    drop(session);
    wait::true_within("no worker at work", SOON, || Ok(workers_at_work(rig)? == 0)).unwrap();
    wait_no_leaf(rig, &task);
    // The last sleep(1) is the payload's.
    wait::true_within("its end", SOON, || Ok(away().is_empty())).unwrap();
    task.remove(&client).unwrap();
}

/// Workers that have a command: others wait for one.
fn workers_at_work(rig: &Rig) -> anyhow::Result<usize> {
    let list = "systemctl list-units --plain --no-legend 'nomad-nspawn-enter-*' | cut -d' ' -f1";
    let mut count = 0;
    for unit in rig.sh(list)?.split_whitespace() {
        // At work it keeps no capability but CAP_KILL and CAP_DAC_OVERRIDE.
        let pid = rig.main_pid(unit)?;
        let look = format!("grep -cs 'CapEff:.00000000000000[02]2$' /proc/{pid}/status || true");
        count += usize::from(pid != 0 && rig.sh(&look)?.trim() == "1");
    }
    Ok(count)
}

#[test]
fn p57_the_workers_program_stays_as_it_is() {
    let (_guard, rig, client) = alone();
    let sum = || rig.sh("sha256sum /usr/libexec/nomad-nspawn/*").unwrap();
    let before = sum();
    for users in [Users::Pick, Users::Host] {
        let task = payload_of(rig, &client, users, OVERWRITER);
        for _ in 0..50 {
            // It runs there as any program, and finds that nobody has given it work.
            let mut session = open(&client, &command(&task.key, &["/proc/self/exe", "enter"]));
            session.close_input();
            assert_ne!(session.finish().unwrap().code, 0);
        }
        let (kept, writable, last) = scan(&client, &task);
        println!("{users:?}: {kept} handles, {writable} writable, last: {last}");
        assert!(kept > 0, "{users:?}: the payload has seen none");
        assert_eq!(writable, 0, "{users:?}");
        task.remove(&client).unwrap();
    }
    assert_eq!(sum(), before);
}
