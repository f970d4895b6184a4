//! Names of pods made again.
//!
//! Each must be what the pure rules make of the event that is named and of the pod that the same collector said. That the API server
//! told of the pod so, it alone can say.

use anyhow::{bail, ensure};
use attribution::{POD_ADDRESS, POD_UID, by_address, in_pod, own_pod_uid};
use proto::v1::{self, event::Body};

use super::Library;

impl Library<'_> {
    /// Whether the rules make this attribution of the inputs.
    pub(super) fn pod_follows(
        &mut self,
        own: &str,
        amendment: &v1::Amendment,
        attribution: &v1::Attribution,
    ) -> anyhow::Result<()> {
        let [input, pod_event] = amendment.inputs.as_slice() else {
            bail!("it names {} events, expected two", amendment.inputs.len());
        };
        let (by, told) = self.event(pod_event)?;
        let Some(Body::KubernetesPod(pod)) = &told.body else {
            bail!("event {pod_event} tells of no pod");
        };
        ensure!(by == own, "event {pod_event} is not this collector's word");
        let (by, told) = self.event(input)?;
        let recorded = told.attribution.unwrap_or_default();
        let session = told.session.unwrap_or_default();
        let (is_same, is_own_word) = match &told.body {
            Some(Body::Amendment(of)) => (
                by == own
                    && (&of.agent_id, &of.session, &of.events)
                        == (&amendment.agent_id, &amendment.session, &amendment.events),
                true,
            ),
            _ => (
                by == amendment.agent_id && session.id == amendment.session && amendment.events.is_empty(),
                false,
            ),
        };
        ensure!(is_same, "event {input} is of something else");
        let expected = match amendment.r#match.as_str() {
            POD_UID if is_own_word || own_pod_uid(&recorded).is_some() => in_pod(&recorded, pod_event, pod),
            POD_ADDRESS if !is_own_word => by_address(&session, &recorded, told.ts_start_ns, pod_event, pod),
            other => bail!("event {input} gets no name by {other:?}"),
        };
        ensure!(
            expected.as_ref() == Some(attribution),
            "the rules make another attribution of them"
        );
        Ok(())
    }
}
