// The page's beginning: which view stands for which address.

import { render } from "preact";
import type { JSX } from "preact";
import { actions } from "./keys.ts";
import { Dialogs } from "./parts/dialogs.tsx";
import { Shell } from "./parts/shell.tsx";
import { route } from "./route.ts";
import { choose, next, show } from "./theme.ts";
import { Coverage } from "./views/coverage.tsx";
import { EventView } from "./views/event.tsx";
import { EvidenceView } from "./views/evidence.tsx";
import { ObjectView, Objects } from "./views/objects.tsx";
import { Overview } from "./views/overview/index.tsx";
import { PrincipalView } from "./views/principal.tsx";
import { Principals } from "./views/principals.tsx";
import { Questions } from "./views/questions.tsx";
import { Records } from "./views/records.tsx";
import { Reports } from "./views/reports.tsx";
import { SessionView } from "./views/session.tsx";
import { LiveTrail } from "./views/trail.tsx";
import { entry } from "./visible.ts";

const VIEWS: Record<string, [string, () => JSX.Element]> = {
  overview: ["Overview", Overview],
  trail: ["Live trail", LiveTrail],
  principals: ["Principals", Principals],
  principal: ["Principal", PrincipalView],
  objects: ["Objects", Objects],
  object: ["Object", ObjectView],
  session: ["Session", SessionView],
  event: ["Event", EventView],
  records: ["Records", Records],
  evidence: ["Evidence", EvidenceView],
  coverage: ["Coverage", Coverage],
  questions: ["Questions", Questions],
  reports: ["Reports", Reports],
};

function App(): JSX.Element {
  const view = route.value.view;
  const [title, View] = entry(VIEWS, view) ?? ["No such view", Nowhere];
  document.title = `${title} · pgwitness`;
  return (
    <>
      <Shell title={title}>
        <View key={view} />
      </Shell>
      <Dialogs />
    </>
  );
}

function Nowhere(): JSX.Element {
  return <p class="state">This address leads nowhere: it may be of another version of the page. Press g, then o, for the overview.</p>;
}

show();
actions.set("d", () => choose(next()));
const root = document.querySelector("#app");
if (root) {
  // The shell that came with the page made way for the first paint.
  root.textContent = "";
  render(<App />, root);
}
