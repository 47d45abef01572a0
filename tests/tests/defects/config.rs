//! D57 to D65: what of a task's configuration had no effect, or the wrong one.

use crate::{script, stand, with};
use nomad_proto::drivers::{Device, Mount};
use serde_json::json;

#[test]
fn d57_user_devices_and_their_environment_are_honoured() {
    // Users are looked up by the image's own getent, which busybox does not have.
    let show = with(script("id -un; echo $GPU"), json!({ "image": "debian" }));
    let outcome = stand()
        .run_with(&show, |task| {
            task.user = "daemon".to_owned();
            task.device_env.insert("GPU".to_owned(), "zero".to_owned());
        })
        .unwrap();
    assert_eq!(outcome.stdout, "daemon\nzero\n", "{outcome:?}");
    // A device needs a line in the policy.
    let device = |task: &mut nomad_proto::drivers::TaskConfig| {
        task.devices.push(Device {
            task_path: "/dev/gpu0".to_owned(),
            host_path: "/dev/zero".to_owned(),
            cgroup_permissions: "rw".to_owned(),
        });
        task.device_env.insert("GPU".to_owned(), "zero".to_owned());
    };
    let refused = stand().refusal_with(&show, device).unwrap();
    assert!(refused.text.contains("[devices] allow"), "{}", refused.text);
}

#[test]
fn d58_files_of_volumes_have_their_owners() {
    let show = script("stat -c '%u %g' /data; echo x > /data/made; stat -c %u /data/made");
    let mount = |task: &mut nomad_proto::drivers::TaskConfig| {
        task.mounts.push(Mount {
            task_path: "/data".to_owned(),
            host_path: "/srv/rw/data".to_owned(),
            ..Mount::default()
        });
    };
    let outcome = stand().run_with(&show, mount).unwrap();
    assert_eq!(outcome.stdout, "1000 1000\n0\n", "{outcome:?}");
    let made = stand().rig.run(&["stat", "-c", "%u", "/srv/rw/data/made"]).unwrap();
    assert_eq!(made, "0");
}

#[test]
fn d59_a_read_only_image_needs_no_directories_for_nomad() {
    let rig = &stand().rig;
    rig.sh("cp -a /var/lib/machines/busybox /var/lib/machines/bare && \
            rm -rf /var/lib/machines/bare/alloc /var/lib/machines/bare/local /var/lib/machines/bare/secrets")
        .unwrap();
    let more = json!({ "image": "bare", "ephemeral": false, "read_only": true });
    let show = script("echo x > /alloc/data && ls -d /local /secrets && touch /new");
    let outcome = stand().run(&with(show, more)).unwrap();
    assert_eq!(outcome.stdout, "/local\n/secrets\n", "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
}

#[test]
fn d60_streams_are_separate_and_hold_nothing_else() {
    let outcome = stand().run(&script(r"printf 'out\n'; printf 'err\n' >&2")).unwrap();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn d61_two_tasks_share_an_image_unless_they_write_to_it() {
    let sleep = script("echo up; sleep 1000");
    let mut first = stand().start(&sleep, |_| {}).unwrap().unwrap();
    let mut second = stand().start(&sleep, |_| {}).unwrap().unwrap();
    first.wait_output("up").unwrap();
    second.wait_output("up").unwrap();
    first.stop("SIGKILL").unwrap();
    second.stop("SIGKILL").unwrap();
}

#[test]
fn d62_the_machine_id_is_the_allocation_id() {
    let allocation = stand().allocation("t").unwrap();
    let id = allocation.id.replace('-', "");
    let running = stand().start_in(allocation, 1, &script("cat /etc/machine-id"), |_| {});
    assert_eq!(running.unwrap().unwrap().finish().unwrap().stdout.trim(), id);
}

#[test]
fn d63_paths_with_colons_and_backslashes_are_paths() {
    let rig = &stand().rig;
    rig.sh(r"mkdir -p '/srv/ro/a:b' '/srv/ro/c\d' && echo colon > '/srv/ro/a:b/f' && echo slash > '/srv/ro/c\d/f'")
        .unwrap();
    let binds = json!({ "bind_read_only": [
        { "/srv/ro/a:b": "/mnt/x\\:y", "/srv/ro/c\\d": "/mnt/z" },
    ] });
    let outcome = stand().run(&with(script("cat '/mnt/x:y/f' /mnt/z/f"), binds)).unwrap();
    assert_eq!(outcome.stdout, "colon\nslash\n", "{outcome:?}");
}

#[test]
fn d64_runs_that_follow_at_once_are_told_apart() {
    let allocation = stand().allocation("t").unwrap();
    let mut allocation = Some(allocation);
    for run in 1..=5 {
        let show = script(&format!("echo run {run}; exit {run}"));
        let running = stand().start_in(allocation.take().unwrap(), run, &show, |_| {}).unwrap();
        let (outcome, back) = running.unwrap().finish_run().unwrap();
        assert_eq!((outcome.stdout, outcome.code), (format!("run {run}\n"), run.cast_signed()));
        allocation = Some(back);
    }
    allocation.unwrap().remove(&stand().rig).unwrap();
}

#[test]
fn d65_an_empty_plugin_configuration_means_the_defaults() {
    use nomad_proto::drivers::fingerprint_response::HealthState;
    let other = stand().another_plugin_with(&json!(null)).unwrap();
    assert_eq!(other.health(HealthState::Healthy).unwrap(), "Healthy");
}
