//! Tells of channels that go down and come up. What was told is written down, so that a restart neither repeats nor
//! forgets it, and a channel that flickers between two looks is not told of.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use conductor_core::callbacks::{ChannelNews, Event};
use conductor_core::{ChannelId, Health, StoreError};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::registry::{LiveChannel, Registry, Tenant};

/// The channels are looked at so often.
const EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(app: &App, stop: &CancellationToken) {
    let mut told = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = look(app, &mut told).await {
            tracing::warn!(%error, "Whether channels are up or down could not be written for the callbacks; it is tried again");
        }
    }
}

/// Compares how the channels go with what was told. `told` is what the store has of it, once that is known.
async fn look(app: &App, told: &mut Option<HashSet<ChannelId>>) -> Result<(), StoreError> {
    let down = match told {
        Some(down) => down,
        None => told.insert(app.store.channels_down().await?.into_iter().collect()),
    };
    let registry = app.registry();
    for channel in listened_to(&registry) {
        let state = channel.state();
        let is_down = match state.health {
            Health::Down { reason } => Some(reason),
            Health::Up => None,
            Health::Unknown => continue,
        };
        if is_down.is_some() == down.contains(&channel.id) {
            continue;
        }
        let is_news_of_trouble = is_down.is_some();
        let news = ChannelNews {
            tenant: channel.tenant,
            channel: channel.id,
            kind: channel.kind.to_owned(),
            name: channel.name.clone(),
            down: is_down,
            since: state.since,
        };
        app.store.tell_of_channel(news, app.clock.now()).await?;
        if is_news_of_trouble {
            down.insert(channel.id);
        } else {
            down.remove(&channel.id);
        }
    }
    if !down.is_empty() {
        let known: HashSet<ChannelId> = listened_to(&registry).map(|channel| channel.id).collect();
        let gone: Vec<ChannelId> = down.difference(&known).copied().collect();
        for channel in gone {
            app.store.forget_channel(channel).await?;
            down.remove(&channel);
        }
    }
    Ok(())
}

/// The channels of tenants who want to hear of them.
fn listened_to(registry: &Registry) -> impl Iterator<Item = &Arc<LiveChannel>> {
    let listens = |tenant: &&Arc<Tenant>| {
        let wants = |event| tenant.endpoints.iter().any(|endpoint| endpoint.events.contains(event));
        wants(Event::ChannelDown) || wants(Event::ChannelUp)
    };
    registry.tenants().filter(listens).flat_map(|tenant| &tenant.channels)
}
