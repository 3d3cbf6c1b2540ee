//! The list of cases, from which both [`CASES`] and the tests of a backend are made.

use crate::{
    Case, archives, exec, faults, files, hostile, isolation, lifecycle, limits, network, output, staging,
    stopping, terminals, tree, users,
};

/// Makes the list, and the macro that makes a test of each of its cases.
macro_rules! list {
    ($d:tt $($area:ident { $($case:ident)* })*) => {
        /// All cases.
        pub const CASES: &[Case] = &[
            $($(Case {
                name: concat!(stringify!($area), "::", stringify!($case)),
                run: |bench| Box::pin($area::$case(bench)),
            },)*)*
        ];

        /// Makes one test of each case. The argument is an expression that makes the [`Backend`].
        #[macro_export]
        macro_rules! suite {
            ($d backend:expr) => {
                $(mod $area {
                    #[allow(unused_imports, reason = "for the expression that makes the backend")]
                    use super::*;

                    $(#[test]
                    fn $case() {
                        $crate::run(concat!(stringify!($area), "::", stringify!($case)), $d backend);
                    })*
                })*
            };
        }
    };
}

list! {
    $
    exec {
        arguments_reach_the_program_as_they_are
        both_streams_and_the_exit_code_come_back
        a_signal_is_told_as_a_signal
        the_default_directory_is_the_root_and_others_are_below_it_or_absolute
        a_background_command_keeps_the_directory
        variables_are_the_sandboxs_and_the_calls_and_none_of_the_hosts
        the_manifests_environment_is_in_every_command
        standard_input_is_nothing_bytes_or_open
        an_input_that_nobody_reads_is_bounded
        a_shell_can_be_named_and_can_be_a_login_shell
        what_cannot_start_says_why
        a_program_in_a_later_directory_of_path_is_found
        commands_run_side_by_side
        a_signal_reaches_the_commands_group
        a_released_process_is_forgotten
    }
    stopping {
        a_plain_command_ends_at_its_deadline_with_its_output
        one_that_ignores_sigterm_ends_too
        one_that_uses_its_grace_is_heard
        forks_end_too
        a_double_fork_into_a_session_of_its_own_ends_too
        one_that_keeps_forking_ends_too
        a_child_that_holds_the_pipe_ends_too
        a_stopped_command_ends_too
        one_that_stops_or_kills_its_parent_gains_nothing
        a_terminal_ends_too
        cancelling_ends_everything_and_says_so
        cancelling_what_has_ended_does_not_change_how
        a_background_process_does_not_hold_up_its_command
        what_a_background_process_says_later_can_still_be_read
        stopping_the_session_ends_everything
    }
    output {
        unread_output_stalls_nothing_and_is_bounded
        a_command_that_is_paced_waits_for_its_reader_and_loses_nothing
        input_that_is_not_read_is_refused_until_it_is
        the_beginning_and_the_end_are_kept
        the_streams_are_apart_and_in_order
        a_reader_waits_for_output_and_no_longer_than_it_asked
        a_command_that_ends_wakes_its_reader
        many_big_answers_that_nobody_takes_do_not_stop_the_rest
    }
    terminals {
        a_command_has_a_terminal_of_the_size_asked_for
        it_is_typed_at_resized_and_interrupted
        closing_its_input_is_an_end_of_file
        a_command_without_one_cannot_be_resized
        a_hundred_at_once
    }
    files {
        what_is_written_is_read
        an_empty_file_and_odd_names_are_files_too
        reading_is_all_or_nothing
        writing_keeps_the_mode_unless_told_otherwise
        writing_anew_refuses_whatever_is_there
        a_reader_sees_the_old_file_or_the_new_one
        parents_are_made_only_when_asked_for
        a_directory_is_listed_by_name
        a_big_directory_is_listed_whole
        removing_is_careful_and_complete
        renaming_replaces_nothing
        no_path_leaves_the_workspace
        links_that_stay_are_followed
        a_race_with_links_leads_nowhere_else
    }
    archives {
        a_workspace_moves_to_another_session
        an_archive_that_is_refused_leaves_the_workspace_as_it_was
        unpacking_adds_below_a_directory
        ten_thousand_files_arrive
        a_reader_that_fails_is_told
        a_writer_that_fails_is_told
        commands_go_on_while_an_archive_is_packed
    }
    hostile {
        no_member_leaves_the_workspace
        links_in_an_archive_lead_nowhere
        a_workspace_holds_no_devices_and_gains_no_rights
        a_restored_archive_is_confined_too
    }
    staging {
        a_manifest_is_the_same_tree_as_in_a_directory
        a_group_that_is_not_what_was_staged_is_found_out
        a_repository_comes_at_its_commit
    }
    tree {
        a_manifest_is_one_tree_on_every_backend
    }
    users {
        they_run_commands_and_own_what_they_make
        files_go_to_the_groups_that_the_sandbox_knows
        nobody_becomes_root
    }
    limits {
        memory_is_limited_and_the_outcome_says_so
        without_a_limit_there_is_none
        processes_are_limited
        a_sandbox_ends_when_its_time_is_up
        a_workspace_grows_no_further_than_its_limit
        an_archive_that_is_too_large_for_the_workspace_is_refused_on_the_way
    }
    isolation {
        there_is_no_network_but_the_own_loopback
        the_hosts_files_and_processes_are_not_there
        the_sandbox_cannot_be_ended_from_inside
        a_core_is_never_dumped_and_descriptors_do_not_leak
    }
    network {
        a_server_inside_is_reached_and_no_other
        an_exposed_port_is_at_this_machines_loopback_address
        there_is_no_way_out_unless_one_is_served
    }
    lifecycle {
        a_session_is_not_running_before_its_start_nor_after_its_stop
        creating_twice_makes_one
        starting_from_many_sides_starts_one
        dropping_the_last_handle_ends_the_sandbox
        a_state_leads_back_to_the_workspace
        deleting_removes_whatever_is_there_and_twice_is_no_error
        two_sandboxes_do_not_meet
        twenty_at_once
        requests_that_make_no_sense_are_refused
        the_workspace_can_be_anywhere_sensible
        the_isolation_achieved_is_told
    }
    faults {
        a_transport_that_is_a_black_hole_is_noticed
        a_sandbox_that_paused_goes_on
        a_sandbox_that_is_gone_is_told_and_comes_back_with_its_workspace
        a_transfer_that_is_cut_leaves_the_old_workspace
        a_full_disk_is_told_and_breaks_nothing
    }
}
