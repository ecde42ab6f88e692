//! One tenant: while it has keys its timelines are attached, and while it has none every request
//! is told so (K6). It heals by itself: the keymanagers are asked again every second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::timeline::{Imported, SafekeeperSet};
use ids::{Generation, TenantId, TimelineId};
use keyring::{KeyError, TenantKeys};
use tokio::io::AsyncRead;
use tokio::sync::Notify;

use super::attached::Attached;
use super::{Node, lock};
use crate::backoff::Backoff;
use crate::import::{self, ImportError};
use crate::refusal::Refusal;
use crate::timeline::{Attachment, Closed, Home, Stale, Timeline};

/// How often a tenant without keys asks for them.
const ASK: Duration = Duration::from_secs(1);
/// How often attachments are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Ancestors of one timeline.
const DEPTH_MAX: usize = 64;

/// A tenant with at least one timeline that belongs here.
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    node: Arc<Node>,
    keys: Mutex<Result<TenantKeys, KeyError>>,
    slots: Mutex<BTreeMap<TimelineId, Slot>>,
    /// Held while timelines are attached: one after the other, parents first.
    attaching: tokio::sync::Mutex<()>,
    wake: Notify,
}

/// A timeline that belongs here.
struct Slot {
    safekeepers: SafekeeperSet,
    now: Now,
}

/// What it is at this moment.
enum Now {
    Attached(Arc<Attached>),
    /// To be attached, and why that was not done yet.
    Waiting(Refusal),
    /// Another page server has it: nothing is done until somebody asks for it (D1).
    Stale(Stale),
}

impl Tenant {
    pub(super) fn new(
        id: TenantId,
        node: &Arc<Node>,
        keys: Result<TenantKeys, KeyError>,
        remembered: impl IntoIterator<Item = (TimelineId, SafekeeperSet)>,
    ) -> Arc<Self> {
        let waiting = |(timeline, safekeepers)| {
            let why = Refusal::not_now(format!("timeline {timeline} is not attached yet"));
            let now = Now::Waiting(why);
            (timeline, Slot { safekeepers, now })
        };
        let tenant = Arc::new(Self {
            id,
            node: Arc::clone(node),
            keys: Mutex::new(keys),
            slots: Mutex::new(remembered.into_iter().map(waiting).collect()),
            attaching: tokio::sync::Mutex::default(),
            wake: Notify::new(),
        });
        let (keep, shutdown) = (Arc::clone(&tenant), node.shutdown.clone());
        drop(node.shutdown.spawn("tenant", async move {
            tokio::select! {
                () = keep.keep() => {}
                () = shutdown.requested() => {}
            }
        }));
        tenant
    }

    /// A timeline that serves.
    pub(crate) fn get(&self, timeline: TimelineId) -> Result<Arc<Attached>, Refusal> {
        let slots = lock(&self.slots);
        let slot = slots.get(&timeline);
        let slot = slot.ok_or_else(|| Refusal::unknown(timeline))?;
        self.check()?;
        match &slot.now {
            Now::Attached(attached) => {
                attached.serving()?;
                Ok(Arc::clone(attached))
            }
            Now::Waiting(why) => Err(why.clone()),
            Now::Stale(stale) => Err((*stale).into()),
        }
    }

    /// Whether answers may leave (K5).
    pub(crate) fn check(&self) -> Result<(), KeyError> {
        match &*lock(&self.keys) {
            Ok(keys) => keys.check(),
            Err(why) => Err(why.clone()),
        }
    }

    /// The timelines that belong here.
    pub(crate) fn timelines(&self) -> Vec<TimelineId> {
        lock(&self.slots).keys().copied().collect()
    }

    /// Attaches `timeline`, or tells it of other safekeepers. To ask again changes nothing.
    pub(crate) async fn attach(
        &self,
        timeline: TimelineId,
        safekeepers: &SafekeeperSet,
    ) -> Result<Arc<Attached>, Refusal> {
        let _turn = self.attaching.lock().await;
        let known = lock(&self.slots)
            .get(&timeline)
            .map(|slot| slot.safekeepers.generation);
        if let Some(known) = known.filter(|known| *known > safekeepers.generation) {
            let asked = safekeepers.generation;
            let message =
                format!("generation {asked} of the safekeepers was replaced by generation {known}");
            return Err(Refusal::bad_request(message));
        }
        self.look_for_newer(timeline).await;
        let attached = self.attach_with_ancestors(timeline, true).await?;
        let remembered = &self.node.remembered;
        remembered.attach(self.id, timeline, safekeepers).await?;
        if let Some(slot) = lock(&self.slots).get_mut(&timeline) {
            slot.safekeepers = safekeepers.clone();
        }
        attached.safekeepers.send_if_modified(|told| {
            let differs = told != safekeepers;
            told.clone_from(safekeepers);
            differs
        });
        // Branches of a timeline that was attached anew read through the old attachment.
        self.wake.notify_one();
        Ok(attached)
    }

    /// D1: an attachment that was lost without a word since does not answer for a new one.
    async fn look_for_newer(&self, timeline: TimelineId) {
        let attached = match lock(&self.slots).get(&timeline).map(|slot| &slot.now) {
            Some(Now::Attached(attached)) => Arc::clone(attached),
            _ => return,
        };
        if let Err(closed) = attached.timeline.look_for_newer().await {
            tracing::warn!(tenant = %self.id, %timeline, error = %closed, "attached anew");
        }
    }

    /// Makes a timeline of a data directory, and attaches it.
    pub(crate) async fn import(
        &self,
        timeline: TimelineId,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Imported, Refusal> {
        // An upload takes its time, and may never end: nothing of the tenant waits for it.
        let home = self.home(timeline);
        let archive = import::unpack(&home, archive).await.map_err(|error| {
            // An upload that a fence ended is told so (K6).
            let closed = self.check().err().map(Refusal::from);
            closed.unwrap_or_else(|| ImportError::from(error).into())
        })?;
        let _turn = self.attaching.lock().await;
        self.set_aside(timeline);
        let imported = import::import(&home, archive, import::IMAGE_BYTES).await;
        self.wake.notify_one();
        let (opened, imported) = imported?;
        self.install(opened).await?;
        Ok(imported)
    }

    /// Takes an attachment out of service that is about to be replaced.
    fn set_aside(&self, timeline: TimelineId) {
        if let Some(slot) = lock(&self.slots).get_mut(&timeline)
            && let Now::Attached(attached) = &slot.now
        {
            attached.end();
            let why = format!("timeline {timeline} is being imported");
            slot.now = Now::Waiting(Refusal::not_now(why));
        }
    }

    /// Where `timeline` is.
    pub(crate) fn home(&self, timeline: TimelineId) -> Home {
        self.node.home(self.id, timeline)
    }

    /// Keeps what belongs here attached while there are keys.
    async fn keep(&self) {
        loop {
            match self.node.keyring.tenant(self.id).await {
                Ok(keys) => {
                    *lock(&self.keys) = Ok(keys.clone());
                    let why = tokio::select! {
                        why = keys.closed() => why,
                        why = self.keep_attached(&keys) => why,
                    };
                    self.fence(why);
                }
                Err(why) => self.fence(why),
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// K6: no task of the tenant works on, and requests are told why.
    fn fence(&self, why: KeyError) {
        let before = std::mem::replace(&mut *lock(&self.keys), Err(why.clone()));
        if before.is_ok() {
            tracing::warn!(tenant = %self.id, error = %why, "the tenant has no keys");
        }
        for slot in lock(&self.slots).values_mut() {
            if let Now::Attached(attached) = &slot.now {
                attached.end();
                attached.timeline.fence(why.clone());
                slot.now = Now::Waiting(why.clone().into());
            }
        }
    }

    /// Attaches what waits, again and again; returns when the lease is over.
    async fn keep_attached(&self, keys: &TenantKeys) -> KeyError {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        loop {
            self.sweep().await;
            let mut failed = false;
            for timeline in self.waiting() {
                let _turn = self.attaching.lock().await;
                match self.attach_with_ancestors(timeline, false).await {
                    Ok(_) => tracing::info!(tenant = %self.id, %timeline, "attached again"),
                    Err(why) => {
                        failed = true;
                        self.wait_on(timeline, why);
                    }
                }
            }
            let pause = if failed {
                backoff.next()
            } else {
                backoff.reset();
                LOOK
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
            }
            if let Err(why) = keys.check() {
                return why;
            }
        }
    }

    fn waiting(&self) -> Vec<TimelineId> {
        let slots = lock(&self.slots);
        let waiting = slots
            .iter()
            .filter(|(_, slot)| matches!(slot.now, Now::Waiting(_)));
        waiting.map(|(timeline, _)| *timeline).collect()
    }

    fn wait_on(&self, timeline: TimelineId, why: Refusal) {
        if let Some(slot) = lock(&self.slots).get_mut(&timeline)
            && let Now::Waiting(before) = &mut slot.now
        {
            if *before != why {
                tracing::warn!(tenant = %self.id, %timeline, error = %why, "not attached");
            }
            *before = why;
        }
    }

    /// Takes attachments out of service that are so no more.
    async fn sweep(&self) {
        let mut stale = Vec::new();
        for (timeline, slot) in &mut *lock(&self.slots) {
            let Now::Attached(attached) = &slot.now else {
                continue;
            };
            let Err(closed) = attached.serving() else {
                continue;
            };
            attached.end();
            slot.now = match attached.timeline.serving() {
                Err(Closed::Stale(newer)) => {
                    stale.push(*timeline);
                    Now::Stale(newer)
                }
                // Fenced, or an ancestor is: attached anew as soon as that can be.
                _ => Now::Waiting(closed.into()),
            };
        }
        for timeline in stale {
            let _turn = self.attaching.lock().await;
            // Somebody may have asked for it again in the meantime.
            if !matches!(lock(&self.slots).get(&timeline), Some(slot) if matches!(slot.now, Now::Stale(_)))
            {
                continue;
            }
            tracing::error!(tenant = %self.id, %timeline, "attached elsewhere: given up here");
            // A restart must not take it back from the one who has it now (D1).
            if let Err(error) = self.node.remembered.forget(self.id, timeline).await {
                tracing::error!(tenant = %self.id, %timeline, %error, "not forgotten");
            }
        }
    }

    /// Attaches `timeline` below its ancestors; `asked` where somebody asked for this very one.
    /// The caller holds the turn.
    async fn attach_with_ancestors(
        &self,
        timeline: TimelineId,
        asked: bool,
    ) -> Result<Arc<Attached>, Refusal> {
        let (mut attached, mut missing, mut next) = (None, Vec::new(), Some(timeline));
        while let Some(at) = next {
            match lock(&self.slots).get(&at).map(|slot| &slot.now) {
                Some(Now::Attached(found)) if found.serving().is_ok() => {
                    attached = Some(Arc::clone(found));
                    break;
                }
                Some(Now::Stale(stale)) if !asked || at != timeline => {
                    return Err((*stale).into());
                }
                _ => {}
            }
            missing.push(at);
            if missing.len() > DEPTH_MAX {
                let message = format!("timeline {timeline} has more than {DEPTH_MAX} ancestors");
                return Err(Refusal::bad_request(message));
            }
            next = self.home(at).ancestor().await?;
        }
        while let Some(at) = missing.pop() {
            attached = Some(self.attach_below(at, attached).await?);
        }
        attached.ok_or_else(|| Refusal::unknown(timeline))
    }

    async fn attach_below(
        &self,
        timeline: TimelineId,
        parent: Option<Arc<Attached>>,
    ) -> Result<Arc<Attached>, Refusal> {
        let remembered = &self.node.remembered;
        let attachment = Attachment {
            home: self.home(timeline),
            parent: parent.map(|parent| Arc::clone(&parent.timeline)),
            known: remembered.manifest(self.id, timeline)?,
        };
        self.install(Timeline::attach(attachment).await?).await
    }

    /// Puts a timeline that was just attached into service.
    async fn install(&self, opened: Arc<Timeline>) -> Result<Arc<Attached>, Refusal> {
        let (timeline, remembered) = (opened.id(), &self.node.remembered);
        let number = opened.accepted_manifest().await;
        remembered.learn(self.id, timeline, number).await?;
        let safekeepers = lock(&self.slots)
            .get(&timeline)
            .map(|slot| slot.safekeepers.clone());
        let safekeepers = safekeepers.unwrap_or(SafekeeperSet {
            generation: Generation(0),
            members: Vec::new(),
        });
        remembered.attach(self.id, timeline, &safekeepers).await?;
        let mut slots = lock(&self.slots);
        // Under the lock: either a fence sees this attachment, or it is seen here (K6).
        opened.serving()?;
        if let Some(Now::Attached(before)) = slots.get(&timeline).map(|slot| &slot.now) {
            before.end();
        }
        let attached = Attached::begin(&self.node, opened, safekeepers.clone());
        let now = Now::Attached(Arc::clone(&attached));
        slots.insert(timeline, Slot { safekeepers, now });
        Ok(attached)
    }
}
