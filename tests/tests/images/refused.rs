//! What is refused before the kernel looks at it, and with which words.

use crate::*;
use proto::error::Code;

/// Runs a script with the layer as `$0`.
fn with_layer(id: Digest, script: &str) {
    rig().run(&["sh", "-ec", script, &layer_path(id)]).unwrap();
}

fn check(id: Digest, words: &str) {
    let refusal = refusal("hostile", Root::Ephemeral(Layer::Memory));
    let text = refusal.to_string();
    assert!(text.contains(words), "{words}: {text}");
    assert!(!refusal.is_retryable(), "{text}");
    assert_eq!(loops(id), 0, "{text}");
}

#[test]
fn a_file_that_is_not_as_the_converter_wrote_it_is_refused_before_a_device_has_it() {
    let _alone = alone();
    let id = import("hostile", &format!("{BUSYBOX} echo hostile > own"));
    assert_eq!(run(named("hostile", Root::ReadOnly), "cat /own"), "hostile");
    wait_no_loops(id);
    with_layer(id, "cp -p \"$0\" /root/good");
    let fields = [
        (1024, "magic"),
        (1028, "checksum"),
        (1032, "feature_compat"),
        (1036, "blkszbits"),
        (1037, "sb_extslots"),
        (1038, "root_nid"),
        (1048, "build_time"),
        (1060, "blocks"),
        (1064, "meta_blkaddr"),
        (1068, "xattr_blkaddr"),
        (1072, "uuid"),
        (1088, "volume_name"),
        (1104, "feature_incompat"),
        (1108, "u1"),
        (1110, "extra_devices"),
        (1151, "extra_devices"),
    ];
    for (at, field) in fields {
        let change = format!(
            "chmod 600 \"$0\"; byte=$(od -An -tu1 -j {at} -N 1 \"$0\"); \
             printf \"\\\\$(printf %o $((byte ^ 1)))\" | dd of=\"$0\" bs=1 seek={at} conv=notrunc status=none; \
             chmod 400 \"$0\""
        );
        with_layer(id, &change);
        check(id, field);
        with_layer(id, "cp -p /root/good \"$0\"");
    }
    for (script, words) in [
        ("truncate -s -4096 \"$0\"", "blocks"),
        ("truncate -s 1000 \"$0\"", "too short"),
        ("chown 1 \"$0\"", "does not belong to root"),
        ("chgrp 1 \"$0\"; chmod 440 \"$0\"", "mode 0400"),
        ("chmod 600 \"$0\"", "mode 0400"),
        ("mv \"$0\" /root/moved; ln -s /root/moved \"$0\"", "symbolic link"),
        ("rm \"$0\"; mkfifo -m 400 \"$0\"", "not a regular file"),
        ("rm \"$0\"; mkdir -m 400 \"$0\"", "not a regular file"),
    ] {
        with_layer(id, script);
        check(id, words);
        with_layer(id, "rm -rf \"$0\"; cp -p /root/good \"$0\"");
    }
    let store = |mode: &str| rig().run(&["chmod", mode, IMAGES]).unwrap();
    store("0711");
    let text = refusal("hostile", Root::ReadOnly).to_string();
    assert!(text.contains("closed to all others"), "{text}");
    store("0700");
    // As between the decision and the launcher: another try finds what is there then.
    with_layer(id, "rm \"$0\"");
    let refusal = refusal("hostile", Root::ReadOnly);
    assert!(refusal.is_retryable() && refusal.to_string().contains("import"), "{refusal}");
    with_layer(id, "cp -p /root/good \"$0\"");
    assert_eq!(run(named("hostile", Root::ReadOnly), "cat /own"), "hostile");
}

#[test]
fn a_damaged_record_or_name_is_reported_with_its_file() {
    let _alone = alone();
    let id = import("damaged", &format!("{BUSYBOX} echo damaged > own"));
    let record = format!("{IMAGES}/images/{id}");
    let good = rig().read_file(&record).unwrap();
    let name = format!("{IMAGES}/imports/damaged");
    for bytes in [&good[..good.len() - 1], &[good.as_slice(), &[0]].concat(), b"", &[2; 40]] {
        rig().write_file(&record, bytes, 0o600).unwrap();
        let text = refusal("damaged", Root::ReadOnly).to_string();
        assert!(text.contains(&record) && text.contains("import the image again"), "{text}");
    }
    rig().run(&["rm", &record]).unwrap();
    let text = refusal("damaged", Root::ReadOnly).to_string();
    assert!(text.contains(&record) && text.contains("is missing"), "{text}");
    rig().write_file(&name, "not an id\n", 0o600).unwrap();
    let text = refusal("damaged", Root::ReadOnly).to_string();
    assert!(text.contains(&name) && text.contains("is not the id"), "{text}");
    // The remedy is what is asked for.
    import("damaged", "");
    assert_eq!(run(named("damaged", Root::ReadOnly), "cat /own"), "damaged");
}

#[test]
fn an_imported_image_is_not_changed() {
    let _alone = alone();
    import("kept", &format!("{BUSYBOX} echo kept > own"));
    let refusal = refusal("kept", Root::Plain);
    assert_eq!(refusal.code, Code::Invalid, "{refusal}");
    assert!(refusal.to_string().contains("ephemeral = true"), "{refusal}");
}
