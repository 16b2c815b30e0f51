"""Every case of the fault matrix and where it is tested: the one table to look into, checked by test_cases.

A case has an id: A arrival, B crash and restart, C endpoints, D disk and permissions, E content, F names and hostile
users. Where the design decides a case differently from the matrix, the test expects what the design says, and the
entry says so. An entry is a list of tests as `file::test` below tests/, or one sentence that begins with
`NOT_YET` (what is missing) or `DECIDED_AGAINST` (why; tests/README.md repeats it).
"""

from __future__ import annotations

NOT_YET, DECIDED_AGAINST = "not yet: ", "decided against: "

#: {letter: number of its last case}
MATRIX = {"A": 34, "B": 26, "C": 21, "D": 15, "E": 27, "F": 21}

_ARRIVAL, _CRASH, _DISK, _INPUT = (f"faults/test_{name}.py" for name in ("arrival", "crash", "disk", "input"))
_SERVERS, _TOKENS, _PRIVACY = (f"faults/test_{name}.py" for name in ("servers", "tokens", "privacy"))
_ADMISSION, _RESOURCES = "unit/coordinator/intake/test_admission.py", "faults/test_resources.py"
_ACCESS, _REMOTE, _ROOM = "faults/test_access.py", "faults/test_remote.py", "faults/test_room.py"
_POWER, _REAL, _MUTANTS = "faults/test_power.py", "faults/test_real_power.py", "faults/test_mutants.py"
_INBOX, _INTAKE, _RECOVERY = (
    "unit/spool/inbox/test_arrivals.py",
    "unit/spool/intake/test_acceptance.py",
    "unit/spool/intake/test_recovery.py",
)
_LEDGER, _OUTBOX, _LAYOUT = (
    "unit/spool/job/test_ledger.py",
    "unit/spool/outbox/test_publication.py",
    "unit/spool/folders/test_layout.py",
)
_LINES, _SCHEDULING = "unit/core/request/test_lines.py", "unit/core/scheduling/test_scheduler.py"
_COORDINATOR, _HARDSHIP = "integration/test_coordinator.py", "integration/test_hardship.py"
_CLIENT, _TRANSPORT = "integration/test_client.py", "integration/test_transport.py"
_FAILURES, _MANGLED, _COMMANDS = (
    "unit/ollama/test_failures.py",
    "property/test_mangled.py",
    "acceptance/test_commands.py",
)


def _in(file: str, *tests: str) -> list[str]:
    return [f"{file}::test_{test}" for test in tests]


_BROKEN_UPLOAD = _in(_ARRIVAL, "upload_that_broke_off_is_sent_again_and_only_the_whole_one_is_run") + _in(
    _INTAKE, "what_looks_like_a_broken_upload_waits_then_is_rejected"
)
_ARRIVES_WHOLE = _in(_ARRIVAL, "file_that_arrives_whole_is_one_job")
_NOT_AN_OBJECT = _in(_LINES, "what_is_no_strict_json_object_is_refused")
_REFUSED = _in(_LINES, "line_is_refused_with_its_reason")
_EACH_FAULT = _in(_COORDINATOR, "each_fault_ends_in_one_answer_or_one_error") + _in(
    _SERVERS, "each_fault_costs_what_it_should_and_its_line_only"
)
_STRANGE = _in(_SERVERS, "reply_that_no_ollama_gives_is_one_result")
_MIXED = _in(_INPUT, "shapes_may_be_mixed_and_prompts_pass_through_as_they_are")
_ANY_FILE = _in(_MANGLED, "any_file_becomes_a_job_with_a_result_for_each_line_or_is_given_back_with_a_reason")
_FUZZ = _in(
    "faults/test_fuzz.py",
    "mutated_lines_have_a_result_or_a_reason_each",
    "two_million_mutated_lines_have_a_result_or_a_reason_each",
)
_STOPS = "faults/test_stops.py"
_KILLS = _in(
    "faults/test_kills.py",
    "random_kills_lose_nothing_and_double_nothing",
    "thousand_random_kills_lose_nothing_and_double_nothing",
)
_CANCELLING = _in("unit/spool/inbox/test_control.py", "crash_before_each_call_of_a_cancelling_cancels_one_job_once")
_CHECKED = _in(_MUTANTS, "code_as_it_is_passes_the_same_check")

ARRIVAL: dict[str, list[str] | str] = {
    "A1": _in(_ARRIVAL, "slow_writer_is_waited_for_to_the_last_line"),
    "A2": _in(_ARRIVAL, "file_that_is_opened_and_added_to_three_times_is_one_job"),
    "A3": _in(_INTAKE, "file_that_grows_while_it_is_copied_is_copied_again"),
    "A4": _in(_OUTBOX, "original_that_grew_after_it_was_accepted_is_kept_and_told"),
    "A5": _ARRIVES_WHOLE,
    "A6": _ARRIVES_WHOLE + _in(_INBOX, "second_hard_link_is_waited_out"),
    "A7": _ARRIVES_WHOLE
    + _in("unit/spool/submit/test_dropping.py", "drop_seen_while_it_has_both_names_is_taken_at_the_next_look"),
    "A8": _ARRIVES_WHOLE,
    "A9": _BROKEN_UPLOAD,
    "A10": _BROKEN_UPLOAD,
    "A11": _BROKEN_UPLOAD + _in(_COORDINATOR, "waiting_sign_appears_at_once_stays_and_goes_when_resolved"),
    "A12": _in(_INBOX, "required_marker_is_waited_for_and_the_wait_is_said")
    + _in(_INTAKE, "file_that_is_not_what_its_marker_promised_is_rejected"),
    "A13": _in(_ARRIVAL, "marker_that_comes_first_waits_for_its_file")
    + _in(
        _INBOX,
        "required_marker_is_waited_for_and_the_wait_is_said",
        "marker_without_its_file_is_removed_after_an_hour",
    ),
    "A14": _in(_ARRIVAL, "old_times_on_a_file_that_is_still_written_prove_nothing"),
    "A15": _in(_ARRIVAL, "clock_on_the_wall_may_jump")
    + _in(_INBOX, "mtime_in_the_future_does_not_keep_a_file_from_settling"),
    # The design: a repeated drop runs again, unless the same content is still unfinished, or with repeat = "skip".
    "A16": _in(
        _COORDINATOR, "repeated_drop_of_an_unfinished_job_waits_and_says_so", "same_name_again_is_a_job_of_its_own"
    )
    + _in("faults/test_repeat.py", "drop_that_was_answered_before_ends_as_a_pointer"),
    "A17": _in(_INTAKE, "same_name_with_other_content_is_a_job_of_its_own"),
    "A18": _in(_ARRIVAL, "file_replaced_between_scan_and_claim_is_examined_again")
    + _in(_INTAKE, "newer_file_swapped_in_before_the_claim_is_simply_the_drop"),
    "A19": _in(_INTAKE, "drop_that_was_taken_away_is_gone"),
    "A20": _in(_INTAKE, "drop_taken_away_before_the_claim_leaves_no_claim"),
    "A21": _in("faults/test_flood.py", "ten_thousand_files_at_once_are_answered_once_each_in_bounded_memory"),
    "A22": _in("faults/test_flood.py", "drops_whose_events_the_kernel_lost_are_found_by_the_scan"),
    "A23": _in(_ARRIVAL, "watch_whose_thread_died_is_built_anew"),
    "A24": _in(_ARRIVAL, "folder_that_took_the_place_of_the_inbox_is_watched"),
    "A25": _in(_ARRIVAL, "folder_that_took_the_place_of_the_inbox_is_watched")
    + _in(_COORDINATOR, "inbox_that_is_made_anew_is_watched_and_used"),
    "A26": _in(_ARRIVAL, "inbox_that_is_mounted_over_and_unmounted_goes_on"),
    "A27": _in(_ARRIVAL, "inbox_that_is_a_link_is_the_folder_behind_it"),
    "A28": _in(_ARRIVAL, "inbox_that_cannot_be_read_for_a_while_loses_nothing")
    + _in(_INBOX, "profile_folder_that_cannot_be_read_costs_the_others_nothing"),
    "A29": _in(
        _RESOURCES,
        "without_an_inotify_instance_the_inbox_is_scanned_until_there_is_one",
        "watch_that_is_refused_keeps_no_descriptor_and_no_thread",
        "watch_takes_no_descriptor_where_there_are_too_few",
    ),
    "A30": _in(
        _REMOTE,
        "file_on_a_share_is_taken_after_a_minute_and_one_with_a_marker_at_once",
        "share_is_not_watched_for_events_and_a_local_folder_in_its_place_is",
    )
    + _in("unit/coordinator/intake/test_drop_intake.py", "file_on_a_share_settles_for_a_minute_unless_it_has_a_marker"),
    "A31": _in(_INBOX, "folder_that_is_no_profile_waits_when_prompts_lie_in_it"),
    "A32": _in(_INBOX, "temporary_and_control_names_are_passed_over_in_silence"),
    "A33": _in(_ARRIVAL, "files_that_came_while_nobody_looked_are_taken_in_the_order_of_their_arrival"),
    "A34": _in(_INBOX, "unreadable_file_waits_and_is_taken_after_chmod"),
}

CRASH: dict[str, list[str] | str] = {
    "B1": _in(_CRASH, "crash_before_each_call_loses_nothing_and_doubles_nothing") + _CANCELLING,
    "B2": _in(_CRASH, "second_crash_while_the_first_is_mended_changes_nothing", "all_second_crashes_change_nothing")
    + _CANCELLING,
    "B3": _KILLS,
    "B4": _in(
        _POWER,
        "power_cut_at_any_moment_loses_nothing_and_doubles_nothing",
        "power_cut_after_a_kill_undoes_nothing_that_was_built_on_what_the_killed_one_left",
        "all_power_cuts_and_those_after_each_kill",
    )
    + _in(
        _REAL,
        "real_power_cuts_lose_nothing_and_double_nothing",
        "hundred_real_power_cuts_lose_nothing_and_double_nothing",
    ),
    "B5": _in(_MUTANTS, "mutant_is_found") + _in(_REAL, "real_power_cuts_find_code_without_any_sync_out"),
    "B6": _KILLS,
    "B7": _in(_COORDINATOR, "killed_worker_is_replaced_and_its_requests_asked_again")
    + _in("unit/workers/test_channel.py", "what_was_said_before_the_end_is_read_though_more_waits_to_be_sent"),
    "B8": _in(_SERVERS, "stopped_worker_is_replaced_and_its_requests_asked_again"),
    "B9": _in(_SERVERS, "worker_that_dies_at_every_start_is_started_after_growing_pauses_and_the_others_go_on"),
    "B10": _in(_COORDINATOR, "poison_prompt_that_ends_its_worker_each_time_becomes_one_error")
    + _in(_SERVERS, "prompt_that_crashes_its_server_fails_alone_though_all_in_flight_die_with_it"),
    # And strangers' bytes are the clerk's: what kills three clerks is given back through the outbox.
    "B11": _in(
        "faults/test_quarantine.py",
        "job_that_ends_the_coordinator_five_times_is_kept_apart_and_the_others_go_on",
        "coordinator_that_ends_by_an_error_counts_as_one_that_was_killed",
        "coordinator_that_is_stopped_in_order_blames_no_job",
        "coordinator_that_lived_with_a_job_for_a_while_does_not_blame_it",
        "file_that_is_answered_in_the_foreground_is_never_kept_apart",
    )
    + _in(_INTAKE, "unread_claim_can_be_given_back"),
    "B12": _in(_COORDINATOR, "killed_coordinator_loses_nothing_and_asks_only_what_was_in_flight_again"),
    "B13": _in(_COORDINATOR, "term_lets_what_is_in_flight_finish_and_starts_nothing_new")
    + _in(_STOPS, "term_while_a_job_is_published_ends_in_order_and_the_next_start_publishes_it"),
    "B14": _in(_COORDINATOR, "second_term_or_int_stops_now")
    + _in(
        "integration/test_reload.py",
        "profile_that_came_is_answered_and_one_that_left_waits_with_a_reason",
        "hangup_ends_no_coordinator_however_early_or_late_it_comes",
    ),
    "B15": _in(_COORDINATOR, "drain_ends_when_its_time_is_over_and_the_rest_is_asked_again"),
    "B16": _in(_STOPS, "restart_by_supervisord_ends_all_workers_and_leaves_one_coordinator")
    + _in(_COMMANDS, "killed_coordinator_and_server_are_started_again"),
    # The design: the coordinator ends with its supervisord, so the second is refused only while the first still ends.
    "B17": _in(
        "faults/test_kills.py",
        "random_kills_under_supervisord_lose_nothing_and_double_nothing",
        "thousand_random_kills_lose_nothing_and_double_nothing",
    )
    + _in(
        _COMMANDS,
        "killed_supervisord_takes_everything_with_it",
        "second_up_on_the_same_root_is_refused_and_harms_nothing",
    ),
    "B18": _CHECKED + _in(_COORDINATOR, "second_coordinator_on_the_same_root_is_refused_and_the_first_goes_on"),
    "B19": _in(_COORDINATOR, "no_child_keeps_the_lock"),
    "B20": _CHECKED
    + _in(_MANGLED, "any_ledger_is_read_as_far_as_it_is_whole_and_the_job_is_finished")
    + _in(_LEDGER, "damaged_tail_is_cut_off_once_and_for_all"),
    "B21": _in(
        _RECOVERY,
        "job_whose_ledger_is_gone_is_asked_anew",
        "bad_lines_of_a_job_whose_ledger_is_gone_are_not_asked",
        "damaged_job_whose_original_is_there_is_taken_in_again",
        "damaged_job_without_its_original_is_kept_and_told",
    ),
    "B22": _CHECKED + _in(_LEDGER, "first_of_two_records_of_one_request_counts"),
    "B23": _in(_COORDINATOR, "result_that_the_consumer_took_away_is_not_published_again"),
    "B24": _in(_COORDINATOR, "job_of_a_newer_version_stops_the_start_with_a_sentence")
    + _in("unit/spool/job/test_job_folder.py", "header_of_an_older_version_is_read"),
    "B25": _in(_COORDINATOR, "job_goes_on_with_other_endpoints_after_a_restart"),
    "B26": _in(_CRASH, "lock_file_that_names_a_living_process_is_only_text"),
}

ENDPOINTS: dict[str, list[str] | str] = {
    "C1": _in(_COORDINATOR, "server_that_dies_and_comes_back_costs_no_line_and_no_spinning")
    + _in(_SERVERS, "endpoints_that_cannot_be_reached_leave_the_work_to_the_others"),
    "C2": [
        f"{_SCHEDULING}::TestMissingModels::test_nothing_fails_while_no_endpoint_was_ever_reached",
        *_in(_SERVERS, "all_endpoints_gone_is_waiting_without_failures_and_goes_on_by_itself"),
    ],
    "C3": [f"{_TRANSPORT}::TestKeptAlive::test_server_that_dies_of_a_request_is_not_asked_the_same_again"],
    "C4": _EACH_FAULT
    + _in(
        _SERVERS,
        "model_that_hangs_is_unloaded_and_loaded_anew_and_answers_what_hung",
        "hang_that_an_idle_endpoint_showed_is_mended_though_no_limit_was_reached",
        "model_that_is_slow_is_not_unloaded",
        "model_that_cannot_be_unloaded_leaves_its_endpoint_at_rest_until_it_can",
    ),
    "C5": _EACH_FAULT,
    "C6": _EACH_FAULT,
    "C7": _EACH_FAULT,
    "C8": _EACH_FAULT + _in(_COORDINATOR, "model_that_no_endpoint_has_fails_its_lines_only"),
    "C9": _EACH_FAULT + _STRANGE,
    "C10": [
        f"{_TRANSPORT}::TestTrouble::test_body_cut_without_a_length_cannot_be_told_here_and_is_judged_by_its_json",
        *_STRANGE,
    ],
    "C11": _EACH_FAULT + _STRANGE,
    "C12": _in(_FAILURES, "200_that_is_no_answer_is_tried_elsewhere_and_counts_against_the_endpoint")
    + _EACH_FAULT
    + _STRANGE,
    "C13": [
        f"{_TRANSPORT}::TestTrouble::test_endless_body_ends_at_the_cap_with_bounded_memory",
        *_EACH_FAULT,
        *_STRANGE,
        *_in(_SERVERS, "gigabyte_and_bomb_stay_out_of_memory"),
    ],
    "C14": [
        f"{_TRANSPORT}::TestOneExchange::test_redirect_is_not_followed_and_the_other_host_sees_nothing",
        *_EACH_FAULT,
        *_in(_SERVERS, "redirect_sends_nothing_to_the_other_host"),
    ],
    "C15": [f"{_CLIENT}::TestProbing::test_proxy_and_netrc_of_the_environment_are_ignored"],
    "C16": _in(_SERVERS, "fast_endpoint_takes_most_and_the_tail_is_one_request_of_the_slow_one"),
    "C17": [
        f"{_TRANSPORT}::TestTrouble::test_name_that_does_not_exist",
        *_in(_SERVERS, "endpoints_that_cannot_be_reached_leave_the_work_to_the_others"),
    ],
    "C18": [f"{_SCHEDULING}::TestFaults::test_late_answer_is_dropped", *_EACH_FAULT],
    "C19": _in(_OUTBOX, "answer_with_lone_surrogates_is_valid_json") + _STRANGE,
    "C20": [
        f"{_TRANSPORT}::TestTrouble::test_compressed_reply_stays_compressed_and_is_no_bomb",
        *_STRANGE,
        *_in(_SERVERS, "gigabyte_and_bomb_stay_out_of_memory"),
    ],
    "C21": _in(_OUTBOX, "manifest_adds_up")
    + _in(
        "integration/test_preflight.py",
        "job_stays_with_its_weights_over_a_crash_though_others_have_more_slots_by_then",
    ),
}

DISK: dict[str, list[str] | str] = {
    "D1": _in(
        _DISK,
        "full_disk_holds_results_until_there_is_room",
        "results_are_recorded_in_the_place_of_the_ballast_on_a_disk_that_stays_full",
    )
    + _in(
        _ROOM,
        "too_little_room_pauses_acceptance_and_dispatch_until_there_is_more",
        "disk_that_somebody_fills_to_its_last_byte_costs_no_answer",
        "coordinator_that_starts_on_a_full_disk_waits_for_room_and_asks_nothing_again",
    ),
    "D2": _in(_DISK, "limit_on_file_sizes_holds_results_until_it_is_lifted"),
    "D3": _in(
        _DISK,
        "full_disk_at_acceptance_leaves_the_claim_to_be_taken_later",
        "file_whose_copy_would_fill_the_disk_is_left_in_the_inbox",
    )
    + _in(_ROOM, "too_little_room_pauses_acceptance_and_dispatch_until_there_is_more"),
    "D4": _in(_DISK, "full_disk_at_publishing_leaves_the_job_to_be_published_later")
    + _in(
        _ROOM,
        "last_answers_are_published_though_the_disk_stays_full",
        "answers_are_published_in_the_place_of_the_ballast_when_nothing_else_needs_it",
        "answers_that_do_not_fit_wait_for_room_and_that_is_said_once",
    ),
    "D5": _in(
        _DISK,
        "results_are_recorded_in_the_place_of_the_ballast_on_a_disk_that_stays_full",
        "what_the_disk_refuses_is_given_to_a_new_descriptor",
        "full_disk_at_acceptance_leaves_the_claim_to_be_taken_later",
    ),
    "D6": _in(_DISK, "what_the_disk_refuses_is_given_to_a_new_descriptor"),
    "D7": _in(
        _DISK, "outbox_that_is_read_only_is_published_into_when_it_is_not", "outbox_that_was_removed_is_made_again"
    ),
    # The design: one root, one filesystem; only the inbox may lie elsewhere.
    "D8": _in(_DISK, "outbox_on_another_filesystem_is_refused_and_nothing_is_lost"),
    "D9": _in(_DISK, "inbox_on_another_filesystem_is_claimed_there_and_copied"),
    "D10": _in(_REMOTE, "root_on_a_network_filesystem_is_warned_of_everywhere"),
    "D11": _in(_DISK, "folder_of_claims_may_be_removed_while_jobs_run")
    + _in(_INTAKE, "folders_of_claims_are_made_again_where_the_inbox_was_made_anew"),
    "D12": _in(_COORDINATOR, "closed_output_does_not_stop_the_daemon"),
    "D13": _in(
        _RESOURCES,
        "coordinator_without_descriptors_says_so_loses_nothing_and_goes_on",
        "forty_descriptors_are_enough_for_a_small_cluster",
    )
    + _in(
        "faults/test_descriptors.py",
        "log_goes_to_standard_error_until_the_journal_can_be_reached",
        "port_and_address_are_not_judged",
        "port_that_is_looked_for_is_named",
        "host_is_not_said_to_be_missing",
        "server_is_not_said_to_refuse",
        "cards_are_not_read_and_that_is_an_error_of_ours",
        "child_process_is_not_said_to_stand_still",
    ),
    "D14": _in(
        _RESOURCES,
        "worker_without_memory_is_replaced_and_what_it_had_is_asked_again",
        "clerk_without_memory_is_replaced_and_its_file_is_accepted",
        "coordinator_without_memory_ends_and_the_next_one_goes_on",
    ),
    "D15": _in(_INPUT, "name_of_one_of_our_own_files_is_a_name_like_any_other")
    + _in(_OUTBOX, "whatever_has_the_name_is_not_overwritten"),
}

CONTENT: dict[str, list[str] | str] = {
    "E1": _in(_INTAKE, "what_looks_like_a_broken_upload_waits_then_is_rejected"),
    "E2": _in(_INTAKE, "what_is_no_prompt_file_is_rejected_at_once_with_the_reason"),
    "E3": _in(
        _INTAKE,
        "last_line_without_line_feed_is_a_request",
        "what_looks_like_a_broken_upload_waits_then_is_rejected",
    ),
    "E4": _ANY_FILE + _in(_INTAKE, "lines_end_at_line_feeds_only", "windows_line_ends_are_read_and_kept"),
    "E5": _in(_INTAKE, "byte_order_mark_at_the_start_is_stripped", "byte_order_mark_in_the_middle_is_a_bad_line"),
    "E6": _ANY_FILE + _in(_INTAKE, "what_is_no_prompt_file_is_rejected_at_once_with_the_reason") + _NOT_AN_OBJECT,
    "E7": _ANY_FILE + _in(_INTAKE, "what_is_no_prompt_file_is_rejected_at_once_with_the_reason") + _NOT_AN_OBJECT,
    "E8": _in(_INPUT, "one_bad_line_of_a_thousand_is_one_error_at_its_number"),
    "E9": _ANY_FILE
    + _in(_INPUT, "file_of_bad_lines_only_ends_as_a_job_of_errors")
    + _in(_COORDINATOR, "submit_waits_for_the_answers"),
    "E10": _in(_INPUT, "line_of_600_megabytes_is_one_error_in_bounded_memory")
    + _in(_INTAKE, "overlong_line_is_skipped_with_bounded_memory"),
    "E11": _in(_INPUT, "file_of_a_million_lines_is_accepted_in_bounded_memory"),
    "E12": _NOT_AN_OBJECT + _FUZZ,
    "E13": _NOT_AN_OBJECT + _FUZZ,
    "E14": _NOT_AN_OBJECT + _FUZZ,
    "E15": _NOT_AN_OBJECT + _FUZZ,
    "E16": _in(_INPUT, "two_lines_of_one_id_are_both_answered_and_keep_it"),
    "E17": _in(_INPUT, "line_without_a_usable_id_goes_by_its_number"),
    "E18": _MIXED,
    "E19": _NOT_AN_OBJECT + _FUZZ,
    "E20": _NOT_AN_OBJECT + _FUZZ,
    "E21": _REFUSED,
    "E22": _in(_LINES, "option_is_refused_by_its_key"),
    # The design: other keys are never obeyed and always echoed.
    "E23": [f"{_LINES}::TestShapes::test_unknown_keys_are_echoed_and_never_obeyed"],
    "E24": _in(_COORDINATOR, "model_that_no_endpoint_has_fails_its_lines_only"),
    "E25": _in(_INTAKE, "what_is_no_prompt_file_is_rejected_at_once_with_the_reason"),
    "E26": _MIXED,
    "E27": _MIXED,
}

NAMES: dict[str, list[str] | str] = {
    "F1": _in(_INPUT, "what_is_no_file_is_not_opened") + _in(_INBOX, "symbolic_link_is_never_followed"),
    "F2": _in(_INPUT, "what_is_no_file_is_not_opened") + _in(_INBOX, "fifo_neither_blocks_nor_is_read"),
    "F3": _in(_INPUT, "hard_link_to_a_file_of_the_daemon_is_never_read"),
    "F4": _in(_INTAKE, "what_is_swapped_in_before_the_claim_is_dropped_unread"),
    "F5": _in(_INPUT, "odd_but_honest_names_stay_inside_the_outbox")
    + _in(_INBOX, "unfit_names_wait_with_their_reason", "name_that_is_not_utf8_waits")
    + _in(_COORDINATOR, "strange_entries_neither_stop_nor_enter"),
    "F6": _in(_INPUT, "names_that_look_alike_are_two_jobs_with_two_outputs"),
    "F7": _in(
        _INPUT,
        "name_of_one_of_our_own_files_is_a_name_like_any_other",
        "files_of_ours_in_the_inbox_are_passed_over",
    )
    + _in(_LAYOUT, "folder_of_claims_of_another_user_is_refused", "folder_of_claims_that_is_a_link_is_refused"),
    "F8": _in(_ACCESS, "drop_of_one_user_is_neither_seen_nor_taken_by_another"),
    "F9": _in(_ACCESS, "inbox_that_does_not_keep_its_users_apart_is_refused_with_what_mends_it")
    + _in(
        "integration/test_access.py",
        "coordinator_does_not_start_on_an_inbox_whose_users_can_take_each_others_files",
    ),
    "F10": _in(
        _ACCESS,
        "answers_are_read_by_their_submitter_alone",
        "rejected_drop_is_given_back_to_its_submitter_alone",
        "status_folders_are_seen_by_their_submitter_alone_and_go",
        "rule_that_changes_over_a_restart_holds_for_what_is_published_from_then_on",
        "job_that_a_killed_coordinator_had_made_private_is_the_groups_again_by_the_new_rule",
        "crash_at_any_step_of_private_publishing_shows_nobody_what_is_not_his",
    )
    + _in("integration/test_api.py", "batch_is_the_job_of_the_tokens_user_and_only_its_results_are_the_apis")
    + _in("faults/test_api.py", "hostile_requests_reach_nothing_of_others")
    + _in("integration/test_access.py", "submitter_waits_for_answers_that_nobody_else_may_read")
    + _in("integration/test_units.py", "answers_are_kept_from_other_members_under_the_units_hardening"),
    "F11": _in(
        _ACCESS,
        "without_acls_the_start_is_refused_with_what_to_do_and_nothing_is_shown",
        "job_that_cannot_be_kept_from_others_is_not_shown",
    ),
    "F12": [
        f"{_SCHEDULING}::TestTurns::test_late_small_job_does_not_wait_for_the_big_one",
        *_in(_ADMISSION, "single_file_does_not_wait_for_somebody_elses_five_thousand"),
    ],
    "F13": _in(_ADMISSION, "who_is_over_his_limit_waits_and_the_others_go_on")
    + _in("unit/coordinator/intake/test_drop_intake.py", "who_has_enough_under_way_waits_and_is_taken_when_a_job_ends"),
    "F14": _in(_INBOX, "restless_file_is_never_offered_and_said_to_be_restless"),
    "F15": _in("faults/test_flood.py", "million_hidden_files_hold_no_drop_up_and_are_told")
    + _in("unit/coordinator/intake/test_drop_intake.py", "thousands_of_hidden_files_are_told_once"),
    "F16": _in(_ARRIVAL, "what_is_done_to_the_original_after_acceptance_does_not_reach_the_job"),
    "F17": _in(
        _PRIVACY,
        "no_prompt_and_no_answer_is_shown_whatever_goes_wrong",
        "processes_of_other_commands_leave_no_core_dump_either",
    ),
    "F18": _in("faults/test_socket.py", "another_user_can_neither_open_the_socket_nor_read_what_it_asks_for"),
    "F19": _in(_PRIVACY, "endpoint_at_a_public_address_is_warned_of")
    + _in("unit/config/test_endpoints.py", "endpoint_in_the_open_is_told_by_its_address"),
    "F20": _in(
        "unit/spool/outbox/test_retention.py",
        "target_of_a_link_that_was_planted_is_untouched",
        "link_in_the_place_of_a_manifest_or_of_a_hidden_folder_is_not_followed",
    )
    + _in("integration/test_access.py", "answers_are_deleted_in_their_time_and_the_log_names_them"),
    "F21": _in(_COORDINATOR, "environment_and_arguments_of_children_hold_no_prompt")
    + _in(_PRIVACY, "no_prompt_and_no_answer_is_shown_whatever_goes_wrong")
    + _in(_TOKENS, "token_is_sent_with_everything_and_shown_nowhere")
    + _in("unit/config/test_tokens.py", "token_hides_wherever_values_are_shown"),
}

CASES = {**ARRIVAL, **CRASH, **ENDPOINTS, **DISK, **CONTENT, **NAMES}
