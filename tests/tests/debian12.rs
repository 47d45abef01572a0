//! The second column of the matrix: chosen tests of the other binaries once more on Debian 12
//! (systemd 252), one for each thing that the two versions of systemd do differently or that would hurt
//! most. `cargo rig test --all` runs all of them there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

use nspawn_tests::outer;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;

/// A test for each binary, of chosen tests in it.
macro_rules! chosen {
    ($($binary:ident: $names:expr,)*) => {
        $(#[test]
        fn $binary() {
            hold_on_252(stringify!($binary), &$names);
        })*
    };
}

chosen! {
    network: [
        "bridges::a_bridge_leads_in_and_out_and_ports_lead_to_its_task",
        "bridges::macvlan_reaches_its_network_and_not_the_host",
        "container_setup::an_address_of_the_hosts_networkd_is_reported_and_ports_lead_to_it",
        "container_setup::without_an_address_a_task_runs_on_with_a_note",
        "isolation::the_hosts_ports_and_the_metadata_service_are_closed_and_its_loopback_as_well",
        "life::a_descriptor_store_that_is_lost_takes_no_link_away",
        "life::d14_everything_goes_when_the_payload_ends_and_not_only_at_its_removal",
        "life::transfers_and_ports_outlive_firewall_and_helper",
        "own_namespace::a_booted_system_with_networkd_keeps_its_network_and_may_do_anything_to_it",
        "own_namespace::a_command_with_the_capability_may_do_anything_to_its_network",
        "own_namespace::the_first_instruction_has_its_network_though_it_belongs_to_the_container",
        "ports::d11_d17_a_port_answers_at_its_address_on_loopback_and_to_every_neighbour",
        "ports::d12_the_first_instruction_has_a_network",
        "zones::tasks_of_a_zone_reach_each_other_by_address_and_by_name",
        "zones::the_first_instruction_finds_the_others",
        "zones::zones_outlive_the_helper",
    ],
    filters: [
        "calls::systemd_nspawn_is_refused_nothing_more",
        "faults::a_damaged_entry_is_never_used",
        "faults::a_version_that_was_not_tried_makes_its_own",
        "kept::every_task_names_the_entry_with_its_filters",
        "same::a_payload_cannot_see_whether_its_filters_come_from_the_cache",
        "same::every_set_of_options_has_the_filters_of_a_plain_nspawn",
        "scan::no_first_instruction_is_without_the_right_filters_whatever_becomes_of_the_cache",
    ],
    firewalls: [
        "others::docker_with_iptables",
        "others::firewalld",
    ],
    roots: [
        "disks::every_file_system_in_every_mode_leaves_the_file_as_it_is",
        "kept::the_next_run_finds_what_the_last_one_changed",
        "modes::a_system_boots_in_every_mode_and_shuts_down",
        "modes::plain_changes_the_image_and_owners_on_disk_are_those_inside",
        "modes::the_image_stays_as_it_is_to_the_byte",
        "modes::volatile_yes_has_nothing_but_usr",
        "owners::owners_are_rewritten_on_disk_when_asked_for",
        "points::an_image_of_nothing_but_usr_gets_every_mount_point",
    ],
    files: [
        "binds::any_name_is_a_name",
        "binds::mounts_below_come_along_and_are_as_read_only_as_the_bind",
        "credentials::values_and_files_arrive_and_stand_on_no_command_line",
        "devices::nodes_are_there_and_work",
        "overlays::changes_go_with_the_task",
        "owners::every_mapping_of_a_bind_has_its_owners",
        "propagation::later_mounts_of_the_host_arrive_only_where_asked_for",
        "set_uid::protected_sources_keep_it_from_everybody",
    ],
    process_keys: [
        "isolation::capabilities_are_added_and_dropped",
        "isolation::no_capability_is_inheritable",
        "isolation::a_limit_above_the_units_own_is_as_asked",
        "isolation::kernel_settings_are_the_tasks_own",
        "isolation::limits_are_those_that_were_asked_for",
        "isolation::system_calls_are_taken_out_and_added",
        "names::the_resolver_file_is_the_jobs_in_every_root",
        "process::any_value_arrives_beside_any_name",
        "process::the_user_is_the_images",
        "reasons::what_the_container_finds_out_is_said_too",
    ],
    keys: [
        "process::key_user",
        "small_images::a_system_whose_store_is_mounted_boots",
        "small_images::a_user_needs_no_program_of_the_image",
        "small_images::a_user_that_a_mount_brings_is_found_by_getent",
        "small_images::an_images_accounts_lead_nowhere",
        "small_images::one_static_program_is_an_image",
        "small_images::the_reason_of_systemd_nspawn_is_in_the_event",
    ],
    steps: [
        "cache::a_fill_killed_at_each_stop_fails_no_start",
        "cache::a_launcher_killed_around_each_filter_leaves_no_payload",
        "filters::a_payload_without_filters_is_killed_and_refused_with_the_package",
    ],
    daemon: [
        "messages::nothing_that_systemd_nspawn_says_is_output_though_the_helper_died",
        "confinement::s6_a_clean_up_is_confined_and_deletes_a_hostile_tree",
        "confinement::s6_what_carries_output_can_do_no_more_than_that",
        "confinement::s12_no_more_may_be_done_with_a_device_than_the_policy_says",
        "output::both_get_everything_to_the_last_line_and_nothing_stays",
        "output::a_containers_own_journal_becomes_its_output",
        "ranges::a_fixed_range_belongs_to_one_allocation_through_the_helpers_death",
        "ready::a_booted_system_is_ready_when_it_has_booted",
        "reload::a_unit_that_runs_is_the_same_afterwards",
        "reload::no_moment_of_a_start_is_a_bad_one",
    ],
    defects: [
        "life::d33_a_command_gets_its_stop_signal_and_its_time",
        "life::d35_the_end_is_told_as_it_was",
        "life::d36_a_reboot_inside_is_an_end",
        "security::d05_a_group_network_keeps_the_user_namespace",
        "security::d08_settings_files_beside_the_image_have_no_effect",
        "upkeep::d44_d45_d49_no_start_and_no_restart_of_the_bus_leaves_or_costs_anything",
    ],
    security: [
        "privileges::p07_p17_p18_a_set_uid_file_of_a_payload_makes_nobody_root",
        "secrets::p33_no_value_of_ten_tasks_is_seen_by_another_user",
    ],
    keys_agent: [
        "a_system_is_booted_with_its_arguments",
        "files_and_roots",
        "names_with_values_in_both_spellings",
        "process_isolation_and_names",
        "what_is_wrong_is_told_in_the_tasks_events",
    ],
    migration: [
        "s17_the_older_drivers_containers_are_ended_by_the_operators_tool_and_nothing_else_is",
    ],
}

/// Paths of the test binaries. As cargo builds them for the whole workspace: of one package alone,
/// other features would be chosen for what they share, and everything be built again.
fn binaries() -> &'static BTreeMap<String, String> {
    static ALL: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--workspace", "--locked", "--no-run", "--message-format", "json"]);
        let build = cargo.output().unwrap();
        assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
        let mut found = BTreeMap::new();
        for line in String::from_utf8_lossy(&build.stdout).lines() {
            let message: Value = serde_json::from_str(line).unwrap_or_default();
            if let (Some(name), Some(path)) =
                (message["target"]["name"].as_str(), message["executable"].as_str())
            {
                found.insert(name.to_owned(), path.to_owned());
            }
        }
        found
    });
    &ALL
}

fn hold_on_252(binary: &str, names: &[&str]) {
    if std::env::var("RIG_SUITE").as_deref() == Ok("bookworm") {
        outer::tell(&format!("{binary}: every test of this run is on bookworm already"));
        return;
    }
    let run = Command::new(&binaries()[binary])
        .env("RIG_SUITE", "bookworm")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("--exact")
        .args(names)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    println!("{text}\n{}", String::from_utf8_lossy(&run.stderr));
    let expected = format!("test result: ok. {} passed", names.len());
    assert!(run.status.success() && text.contains(&expected), "not all of them, see above");
}
