//! Names of pods made again.
//!
//! Each must be what the pure rules make of the event that is named and of the pod that the same collector said. That the API server
//! told of the pod so, it alone can say.

use anyhow::{bail, ensure};
use attribution::{
    POD_ADDRESS, POD_UID, by_address, client_pod_uid, client_session, in_pod, own_pod_uid, passed_on,
};
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
        let mut recorded = told.attribution.unwrap_or_default();
        let session = told.session.unwrap_or_default();
        let mut is_own_word = false;
        let mut client = None;
        let is_same = if let Some(Body::Amendment(of)) = &told.body {
            is_own_word = true;
            by == own
                && (&of.agent_id, &of.session, &of.events)
                    == (&amendment.agent_id, &amendment.session, &amendment.events)
        } else {
            // What a pooler passed on tells of its client's session.
            client = passed_on(&recorded);
            let id = client_session(&recorded).unwrap_or(&session.id);
            by == amendment.agent_id && id == amendment.session && amendment.events.is_empty()
        };
        ensure!(is_same, "event {input} is of something else");
        let is_passed_on = client.is_some();
        recorded = client.unwrap_or(recorded);
        let uid = if is_passed_on {
            client_pod_uid(&recorded)
        } else {
            own_pod_uid(&recorded)
        };
        let expected = match amendment.r#match.as_str() {
            POD_UID if is_own_word || uid.is_some() => in_pod(&recorded, pod_event, pod),
            POD_ADDRESS if !is_own_word && !is_passed_on => {
                by_address(&session, &recorded, told.ts_start_ns, pod_event, pod)
            }
            other => bail!("event {input} gets no name by {other:?}"),
        };
        ensure!(
            expected.as_ref() == Some(attribution),
            "the rules make another attribution of them"
        );
        Ok(())
    }
}
