//! Warnings of limits that can never be met: they are no faults, but hardly what somebody wanted.

use std::time::Duration;

use conductor_channels::Plugin;
use conductor_core::Rate;
use conductor_core::notification::MESSAGE_MAX_BYTES;

use super::model::CommonOptions;
use super::values::{Reader, format_duration};

/// What a tenant may have waiting: `rateLimit` stands at `pointer`.
pub(super) fn warn_of_room(reader: &mut Reader<'_, '_>, pointer: &str, queued: Option<u64>, bytes: Option<u64>) {
    let Some(bytes) = bytes else { return };
    let place = format!("{pointer}/bytes");
    // A notification of one byte is the smallest that there can be.
    if let Some(queued) = queued.filter(|queued| bytes < *queued) {
        let found = format!("`queued` can never be met: {queued} notifications take more than {bytes} bytes");
        let fault = reader.document.error(&place, found).as_warning();
        reader.report.add(fault.help("raise `bytes`, or leave `queued` out"));
    }
    let largest = u64::try_from(MESSAGE_MAX_BYTES).unwrap_or(u64::MAX);
    if bytes < largest {
        let found = format!("a notification of more than {bytes} bytes is refused, however little waits");
        let fault = reader.document.error(&place, found).as_warning();
        let expected = format!("at least {largest}: a message may be so long");
        reader.report.add(fault.expected(expected).help("raise `bytes`, unless long messages are to be refused"));
    }
}

/// How often a channel sends. `pointer` is that of its `options`; `queued` is what its tenant may have waiting.
pub(super) fn warn_of_rate(
    reader: &mut Reader<'_, '_>,
    pointer: &str,
    plugin: Option<Plugin>,
    common: &CommonOptions,
    queued: Option<u64>,
) {
    let by_provider = plugin.and_then(|plugin| plugin.rate);
    let Some(rate) = common.rate.or(by_provider) else { return };
    let place = format!("{pointer}/{}", if common.rate.is_some() { "rate" } else { "expiresAfter" });
    let expires = format_duration(common.expires_after);
    let warn = |reader: &mut Reader<'_, '_>, found: String, help: &str| {
        let fault = reader.document.error(&place, found).as_warning();
        reader.report.add(fault.help(help));
    };
    // A rate of fewer than one message in the time in which a message expires lets some of them expire unsent.
    if rate.interval() > common.expires_after {
        let every = format_duration(Duration::from_secs(rate.interval().as_secs()));
        let found =
            format!("this rate cannot be met: one message leaves every {every}, and each expires after {expires}");
        return warn(reader, found, "raise `limit` or `expiresAfter`, or shorten `per`");
    }
    let in_time = common.expires_after.as_nanos() / rate.interval().as_nanos().max(1);
    if let Some(queued) = queued.filter(|queued| u128::from(*queued) > in_time) {
        let found = format!(
            "a full queue cannot be sent in time: the tenant may have {queued} notifications waiting, of which \
             {in_time} leave through this channel before the rest expires after {expires}"
        );
        return warn(reader, found, "raise `limit` or `expiresAfter`, or lower `queued` of the tenant's `rateLimit`");
    }
    let is_faster = |most: &Rate| rate.interval() < most.interval();
    if let (Some(most), Some(plugin), None) = (by_provider.filter(is_faster), plugin, &common.base_url) {
        let (kind, limit, per) = (plugin.kind, most.limit, format_duration(most.per));
        let found =
            format!("this rate cannot be met: {kind} takes {limit} messages in {per}, unless it has granted more");
        warn(reader, found, "lower `limit`; without `rate`, the channel is as fast as the provider allows");
    }
}
