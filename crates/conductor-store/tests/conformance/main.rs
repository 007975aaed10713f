//! What every engine has to do alike. A case sees a `Store` and a way to crash and restart it, never an engine; an
//! engine passes by adding one line to `conformance!` at the end of this file.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod audit;
mod backlog;
mod callbacks;
mod changes;
mod concurrency;
mod copies;
mod harness;
mod idempotency;
mod life;
mod lists;
mod model;
mod progress;
mod receipts;
mod recovery;
mod replays;
mod retention;
mod sqlite;
mod tidying;
mod upgrade;

/// Runs each case on each engine, as `engine::theme::case`.
macro_rules! conformance {
    ($($engine:ident: $new:expr),+ $(,)?) => {$(
        mod on {
            pub(crate) mod $engine {
                conformance!(@cases $new;
                    life: a_notification_goes_from_accepted_to_sent, a_hint_that_has_become_wrong_gives_no_lease,
                        all_fields_read_back_as_they_were_accepted,
                        a_lease_is_given_once, a_used_lease_settles_nothing, a_released_lease_leaves_no_trace,
                        a_retry_waits_until_it_is_due, a_failure_that_does_not_count_uses_up_no_attempt,
                        what_ends_without_an_attempt_has_none, a_failure_goes_on_to_each_fallback_in_turn,
                        what_expired_takes_no_fallback, what_happened_to_a_delivery_is_told_in_its_story,
                        of_a_long_history_the_first_and_the_last_attempts_are_kept,
                        the_status_follows_the_clock, a_claim_of_many_answers_each_in_order,
                        a_closed_store_says_so;
                    audit: each_change_of_a_state_leaves_one_entry, a_report_and_a_bulk_retry_leave_their_entries,
                        an_entry_says_who_what_and_why, a_process_that_died_during_an_attempt_leaves_an_entry,
                        the_chain_goes_on_after_crashes_stops_and_what_could_not_be_written,
                        a_tenant_lists_its_own_entries_and_the_operator_all,
                        what_is_recorded_stands_in_the_log_with_its_content_until_that_is_too_old,
                        the_oldest_entries_go_and_the_others_can_still_be_proved,
                        a_clock_that_goes_wrong_removes_no_entry_too_early,
                        what_was_accepted_can_be_proved_until_it_is_redacted;
                    backlog: a_channels_backlog_is_found_in_parts_and_in_order,
                        a_part_of_a_backlog_is_bounded_also_where_nothing_is_found,
                        the_oldest_of_a_channel_is_found_little_by_little_behind_those_of_others,
                        what_is_held_or_over_is_no_backlog, a_backlog_that_saw_a_process_die_is_suspect;
                    changes: a_waiting_notification_is_taken_back, what_is_under_way_or_over_is_not_taken_back,
                        a_held_notification_waits_for_a_person, a_held_notification_goes_on_when_it_is_replayed,
                        a_held_notification_is_redirected, a_held_notification_is_taken_back,
                        a_dead_letter_is_replayed_as_a_new_delivery, a_dead_letter_is_redirected,
                        a_redirected_dead_letter_is_still_redirected_after_a_restart,
                        a_replayed_dead_letter_goes_on_with_the_fallbacks_that_are_left,
                        only_dead_letters_and_held_ones_are_replayed, another_tenant_finds_nothing,
                        what_waits_too_long_expires, what_is_under_way_or_held_does_not_expire,
                        many_under_way_do_not_keep_others_from_expiring,
                        a_newer_one_with_the_same_key_takes_the_place, a_key_belongs_to_a_channel_a_target_and_a_tenant,
                        what_is_under_way_is_not_superseded, a_key_is_free_after_the_end;
                    idempotency: the_same_request_is_replayed, another_request_with_the_same_key_is_a_conflict,
                        a_key_is_forgotten_after_a_day, a_key_belongs_to_its_tenant, old_keys_are_forgotten_when_told,
                        a_replayed_request_supersedes_nothing;
                    lists: the_newest_comes_first, a_page_of_long_messages_is_short, a_walk_sees_each_once_while_more_are_accepted, filters_have_to_fit_all,
                        each_status_is_found, a_rare_match_behind_many_is_found_though_pages_are_empty,
                        the_fed_and_the_unfed_part_are_one_list, a_list_is_the_same_after_a_crash_and_after_a_stop,
                        a_straggler_is_listed, a_tenant_sees_its_own, text_is_found_in_either_case;
                    recovery: a_restart_hands_over_all_that_waits_in_order,
                        what_is_due_much_later_is_handed_over_when_its_time_comes_near,
                        a_look_for_what_is_due_is_bounded_also_where_nothing_is, what_came_since_is_handed_over_after_what_was_left,
                        nothing_that_ended_or_is_held_is_handed_over, after_a_stop_nothing_is_suspect,
                        after_a_crash_everything_is_suspect, what_kills_the_process_is_counted_and_slowed_down,
                        a_settled_retry_starts_the_count_again, a_released_suspect_is_not_blamed,
                        a_suspect_that_is_not_due_is_not_blamed, a_held_suspect_is_not_blamed,
                        a_stop_after_a_crash_ends_the_suspicion, fallbacks_and_retries_survive_a_crash,
                        a_crash_at_the_very_start_leaves_a_good_store;
                    replays: a_step_queues_and_moves_on_together,
                        a_job_takes_each_once_though_it_fails_again_and_nothing_newer,
                        a_job_keeps_its_filter_and_its_way, held_ones_go_on_in_a_step,
                        a_canceled_job_queues_nothing_more, a_tenant_has_its_own_jobs_and_only_a_few,
                        old_jobs_are_forgotten_and_running_ones_are_not, a_step_that_is_too_large_is_not_taken;
                    progress: an_attempt_goes_on_with_the_part_that_failed,
                        a_process_that_dies_between_parts_has_written_how_far_it_came,
                        a_released_attempt_keeps_the_parts_that_were_sent,
                        progress_that_was_not_written_is_written_when_the_attempt_is_settled,
                        a_used_lease_advances_nothing, refused_markup_is_due_again_at_once_as_plain_text,
                        a_fallback_begins_with_the_first_part_and_its_markup,
                        a_replayed_dead_letter_begins_with_the_first_part,
                        a_held_one_goes_on_with_its_part_unless_it_takes_another_channel,
                        a_pause_that_a_provider_asked_for_is_told_after_a_restart;
                    receipts: a_report_moves_what_was_sent, the_same_report_again_changes_nothing,
                        what_arrived_stays_delivered_whatever_comes_after,
                        a_text_in_parts_is_delivered_when_all_are_and_undelivered_when_one_is_not,
                        a_report_that_comes_before_the_attempt_is_settled_counts,
                        what_did_not_arrive_goes_on_to_its_fallback_once,
                        a_fallback_that_would_come_too_late_is_not_queued, an_undelivered_one_can_be_tried_again,
                        nobody_reports_on_what_is_not_theirs, what_was_never_sent_is_not_moved_by_a_report,
                        a_late_report_keeps_no_words_where_the_content_is_gone;
                    callbacks: what_has_arrived_before_it_was_settled_was_sent_first,
                        who_disabled_and_enabled_an_endpoint_is_in_the_audit_log,
                        each_change_is_told_once_and_in_order, a_notification_that_goes_on_is_not_told_of,
                        a_callback_says_what_happened_and_not_what_was_written,
                        nobody_else_is_told_and_nothing_that_was_not_asked_for, what_did_not_happen_is_not_told,
                        what_waits_survives_a_crash_and_is_found_by_whoever_asks,
                        a_settled_callback_is_done_or_waits_or_is_given_up, the_last_that_were_given_up_are_remembered,
                        an_endpoint_that_wants_no_more_gets_no_more,
                        what_waits_too_long_is_thrown_away_when_told,
                        what_is_configured_no_more_is_thrown_away_when_told,
                        a_channel_is_told_of_and_what_was_told_is_remembered,
                        what_is_forgotten_is_forgotten_in_callbacks_too;
                    concurrency: all_that_was_acknowledged_is_there_after_a_crash, a_race_for_one_delivery_has_one_winner,
                        a_race_between_cancel_and_claim_has_one_winner, a_stop_under_load_loses_nothing,
                        a_dropped_claim_leases_nothing;
                    retention: what_has_ended_long_ago_is_removed, what_waits_or_is_held_stays_however_old_it_is,
                        the_age_counts_from_the_end_of_the_last_delivery, content_goes_before_the_rest,
                        a_redacted_dead_letter_is_not_replayed, what_is_tried_again_in_time_stays,
                        each_tenant_has_its_own_rule, a_clock_that_was_wrong_removes_nothing_too_early,
                        a_request_whose_notification_is_gone_is_new_again,
                        a_list_is_read_while_what_is_old_is_removed,
                        a_crash_in_the_middle_of_a_round_leaves_a_good_store;
                    model: random_operations_agree_with_a_simple_model;
                );
            }
        }
    )+};
    (@cases $new:expr; $($theme:ident: $($case:ident),+;)+) => {$(
        mod $theme {
            $(
                #[test]
                fn $case() {
                    $crate::harness::run(|| Box::new($new), $crate::$theme::$case);
                }
            )+
        }
    )+};
}

conformance! {
    sqlite: crate::sqlite::Sqlite::new(),
}
