// What the collector answers, as far as the page reads it. The forms are those of docs/event-reference.md and openapi.json; a field that is
// absent is not known.

export interface Page {
  columns: string[];
  rows: unknown[][];
  truncated: boolean;
}

export type Level = "observed" | "joined" | "inferred" | "asserted" | "none";

export interface EvidenceStatus {
  origin: string;
  tree_size: number;
  root_hash: string;
  checkpoint: string | null;
  checkpoint_age_seconds: number | null;
  batches: number;
  events: number;
  aside: number;
  agents: number;
}

export interface StoreStatus {
  entries: number;
  behind_from: number | null;
}

export interface Overview {
  statements: number;
  errors: number;
  principals: number;
  roles: number;
  attributed: number;
  observed: number;
  joined: number;
  inferred: number;
  asserted: number;
  rows: number | null;
  gaps: number;
  bytes_missing: number;
  gaps_of_unknown_size: number;
  opaque_sessions: number;
  auth_failures: number;
  alarms: number;
  since: string;
  /** The record's first event. Null: there is none, or the collector does not say. */
  begins?: string | null;
  evidence: EvidenceStatus;
  store: StoreStatus;
}

export interface Principal {
  principal: string | null;
  principal_kind: string | null;
  confidence: (string | null)[] | null;
  method: string | null;
  reason: string | null;
  roles: (string | null)[] | null;
  databases: (string | null)[] | null;
  application_names: (string | null)[] | null;
  exe: string | null;
  command_line: string | null;
  statements: number;
  rows: number | null;
  rows_affected: number | null;
  errors: number;
  objects: (string | null)[] | null;
  first_seen: string;
  last_seen: string;
}

export interface AgentStatus {
  agent: string;
  last_sequence: number;
  last_seen: string | null;
  last_seen_seconds: number | null;
  counters: Record<string, number> | null;
}

export interface Status {
  version: string;
  evidence: EvidenceStatus;
  agents: AgentStatus[];
  store: StoreStatus;
  inventory: Record<string, unknown> | null;
}

export interface Process {
  pid?: number;
  exe?: string;
  command_line?: string[];
  uid?: number;
  user?: string;
  login_uid?: number;
  login_user?: string;
  unit?: string;
  cgroup_path?: string;
  exe_sha256?: string;
  tty?: string;
  ancestry?: { pid: number; exe: string }[];
}

export interface Hop {
  name?: string;
  role?: string;
  confidence?: string;
  process?: Process;
  session?: string;
  client_confidence?: string;
  client_method?: string;
}

export interface Attribution {
  principal?: string;
  kind?: string;
  confidence?: string;
  method?: string;
  reason?: string;
  evidence?: string[];
  hops?: Hop[];
  process?: Process;
  container?: { id?: string; runtime?: string; name?: string; image?: string };
  pod?: { uid?: string; name?: string; namespace?: string };
  amended_by?: string;
  recorded?: Attribution;
  put_in?: boolean;
  asserted?: Record<string, unknown>;
}

export interface Session {
  id?: string;
  backend_pid?: number;
  login_role?: string;
  effective_role?: string;
  effective_role_possibly_stale?: boolean;
  database?: string;
  application_name?: string;
  transport?: string;
  encryption?: string;
  tls_version?: string;
  auth_method?: string;
  server_version?: string;
  client?: { addr?: string; port?: number };
  server?: { addr?: string; port?: number };
  opened_before_attach?: boolean;
}

export interface Subject {
  object: string;
  column: string;
  tokens?: string[];
  filter_values?: number;
  complete?: boolean;
  sources?: string[];
}

export interface Touched {
  schema?: string;
  name: string;
  kind?: string;
  access?: string;
  columns?: string[];
  filtered?: string[];
  columns_exact?: boolean;
}

export interface Event {
  kind: string;
  event_id: string;
  agent: string;
  seq: number;
  ts_start?: string;
  ts_first_response?: string;
  ts_end?: string;
  session?: Session;
  attribution?: Attribution;
  protocol?: string;
  params?: unknown[];
  param_count?: number;
  statement?: { text?: string; fingerprint?: string; truncated?: boolean; text_known?: boolean; source?: string };
  meaning?: { class?: string; command?: string; tag?: string; parsed?: boolean; objects?: Touched[] };
  result?: {
    phase?: string;
    outcome?: string;
    rows?: number;
    rows_affected?: number;
    bytes_in?: number;
    bytes_out?: number;
    sqlstate?: string;
    severity?: string;
  };
  transaction?: { status?: string; seq?: number; final?: string };
  subjects?: Subject[];
  rollup?: { executions: number; duration_ns: number };
  inventory?: { mark?: string; because?: string; owner?: string; purpose?: string };
  loss?: { reason?: string; direction?: string; bytes_missing?: number; events_missing?: number; detail?: string };
  amends?: { agent?: string; session?: string; inputs?: string[]; match?: string };
  auth_failure?: { sqlstate?: string; severity?: string };
  [kind: string]: unknown;
}

/** `GET /api/v1/evidence`; null is not known. */
export interface Evidence {
  origin: string | null;
  verifier_key: string | null;
  checkpoint: { size: number | null; root: string | null; time: string | null; note: string | null } | null;
  cosigned: { size: number | null; by: string[] | null } | null;
  chains: { agent: string; batches: number | null; last_seen: string | null; key: string | null; keys_before?: number }[] | null;
  aside: number | null;
}

/** One way in which an object's values became tokens. */
export interface Made {
  column: string;
  family: string | null;
  key: string | null;
  values: number;
}

export interface Sought {
  key: string;
  family: string;
  token: string;
}

export interface WhoAnswer {
  touched: Page;
  not_excluded: Page;
  gaps: number;
  opaque_sessions: number;
  left_out: number;
  moved: number;
  removals: number;
  seen: [string | null, string | null];
  more: boolean;
  not_counted: boolean;
}
