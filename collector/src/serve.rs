//! `pgwitness-collector serve`: the running collector.
//!
//! Owns the order of starting and of stopping, and nothing in between: log, store, ingest and HTTP know nothing of
//! each other but what is handed to them here.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::{Context, anyhow, ensure};
use axum::serve::ListenerExt as _;
use evidence::ORIGIN_PREFIX;
use proto::v1::delivery_server::DeliveryServer;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, mpsc, watch},
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};

use crate::{
    access::{Access, Turns},
    accesses::Accesses,
    cluster::Cluster,
    config::{Config, Overrides},
    custody::{self, Control, Custodian},
    expectations::{self, Expectations},
    http,
    ingest::Ingest,
    join::Joiner,
    log::{Durable, Log, Originator, Places},
    metrics::Metrics,
    place::{self, Place, SocketFile},
    publish::Publisher,
    rebuild,
    sql::Sql,
    store::{Site, Store, StoreOptions},
    trust::{Admission, Authorities, EnrolmentService, Own, Registry, Reviewer, Tls, admit_connections},
};

/// Receives events from agents, keeps them, and answers over HTTP.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file (TOML); without one, defaults and PGWITNESS_COLLECTOR__SECTION__KEY.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for evidence and store [default: /var/lib/pgwitness-collector for root, else ./pgwitness-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// File that says who is expected to do what; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// Where agents deliver: an address, over TLS if it is not of loopback, or unix:/PATH [default: 127.0.0.1:7433].
    #[arg(long, value_name = "ADDR:PORT")]
    pub grpc: Option<Place>,
    /// Where people ask: on another address than loopback with http.tls and a user [default: 127.0.0.1:7480].
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
    /// Where the views are asked over PostgreSQL's protocol, by psql, Grafana and BI tools; nowhere without one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub sql: Option<SocketAddr>,
    /// Lets anybody deliver who reaches grpc.listen, from other hosts, too, without TLS.
    #[arg(long)]
    pub insecure: bool,
    /// Checks the configuration, prints it as it takes effect, and ends.
    #[arg(long)]
    pub check_config: bool,
}

/// Exit code for a command line or configuration that cannot be used.
const USAGE: u8 = 2;

/// How long open answers may take when the collector stops; live views never end by themselves.
const HTTP_GRACE: Duration = Duration::from_secs(2);

/// Runs until SIGINT or SIGTERM, or until something cannot go on.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let overrides = Overrides {
        data: args.data,
        inventory: args.inventory,
        grpc: args.grpc,
        http: args.http,
        sql: args.sql,
        insecure: args.insecure,
    };
    let config = match Config::load(args.config.as_deref(), overrides) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("pgwitness-collector: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    if let Some(file) = &config.inventory
        && let Err(error) = expectations::read(file)
    {
        eprintln!("pgwitness-collector: {error:#}");
        return Ok(ExitCode::from(USAGE));
    }
    if args.check_config {
        print!("{}", config.effective());
        return Ok(ExitCode::SUCCESS);
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    serve(config, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// Serves until `stop` resolves; then ingest stops first, then the log with a last checkpoint, then the store.
pub async fn serve(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    if config.trust.insecure {
        tracing::warn!(
            "INSECURE: whoever reaches {} can deliver under any name that is free, and whoever is on the way reads and changes what \
             agents say first; leave out --insecure",
            config.grpc.listen
        );
    }
    let access = Arc::new(Access::by(&config)?);
    let web_tls = config
        .http
        .tls
        .clone()
        .map(|files| Tls::new(Authorities::Readers(files)));
    let web_tls = web_tls.transpose()?.map(Arc::new);
    let grpc = Agents::await_at(&config.grpc.listen).await?;
    let web = bind("http.listen (--http)", config.http.listen).await?;
    let views = match config.sql.listen {
        Some(address) => Some(bind("sql.listen (--sql)", address).await?),
        None => None,
    };
    let views_address = views.as_ref().map(TcpListener::local_addr).transpose()?;
    let (grpc_address, web_address) = (grpc.place()?, web.local_addr()?);
    let metrics = Arc::new(Metrics::default());
    let expectations = config.inventory.as_deref().map(Expectations::open).transpose()?;
    let (data, options) = (config.data.clone(), config.log_options());
    let runtime = tokio::runtime::Handle::current();
    let opened = tokio::task::spawn_blocking({
        let metrics = Arc::clone(&metrics);
        move || {
            let _runtime = runtime.enter();
            Log::open(&data, options, metrics)
        }
    })
    .await??;
    let site = Site::configured(&config.data, &config.store)?;
    let store = site.open(StoreOptions::default()).await?;
    let evidence = config.data.join("evidence");
    store.show_events_of(Arc::new(Places::new(&evidence)));
    let removals = opened.removals;
    custody::finish(&store, &removals).await?;
    // Before anybody else can have its name.
    let originator = own_chain(&opened.log).await;
    if let Some((id, _)) = &originator {
        store.believe(id).await?;
    }
    let watching = expectations.map(|expectations| {
        let expectations = Arc::new(expectations);
        store.expect(Arc::clone(&expectations));
        tokio::spawn(expectations.watch(Arc::clone(&metrics)))
    });
    let held = opened.log.status().borrow().batches;
    refill(&evidence, &store, &metrics, held).await?;

    let mut keeping = None;
    let custody = match &originator {
        Some((id, originator)) => {
            let own = (id.as_str(), originator);
            let custodian = Custodian::new(&config.data, &opened.log, &store, own, removals);
            let custodian = Arc::new(custodian);
            if let Some(days) = config.retention.keep_days {
                keeping = Some(tokio::spawn(Arc::clone(&custodian).keep(days)));
            }
            let control = Control::open(&config.data).inspect_err(|error| {
                tracing::error!(
                    error = format!("{error:#}"),
                    "nothing can be erased or held while this collector runs"
                );
            });
            control.ok().map(|control| tokio::spawn(control.serve(custodian)))
        }
        None => None,
    };
    let alarming = originator.as_ref().map(|(_, originator)| {
        let alarms = Arc::clone(&metrics.alarms);
        tokio::spawn(alarms.tell(Arc::clone(originator)))
    });
    // Told at the end, too.
    let accessing = originator.as_ref().map(|(_, originator)| {
        let accesses = Arc::new(Accesses::default());
        let telling = tokio::spawn(Arc::clone(&accesses).tell(Arc::clone(originator)));
        (accesses, Arc::clone(originator), telling)
    });
    let accesses = accessing.as_ref().map(|(accesses, ..)| Arc::clone(accesses));
    let cluster = config.kubernetes.is_on().then(|| {
        let cluster = Cluster::new(config.kubernetes.clone(), Arc::clone(&metrics));
        Arc::new(cluster)
    });
    let hearing = cluster
        .as_ref()
        .map(|cluster| tokio::spawn(Arc::clone(cluster).watch()));
    let timing = cluster.clone();
    let joiner = originator.map(|(id, originator)| {
        let joiner = Joiner::new(&id, Arc::clone(store.amendments()), Arc::clone(&metrics));
        let joiner = Arc::new(match cluster {
            Some(cluster) => joiner.naming_pods(cluster),
            None => joiner,
        });
        (
            Arc::clone(&joiner),
            tokio::spawn(joiner.tell(originator, evidence.clone(), held)),
        )
    });
    let (joiner, telling) = joiner.unzip();
    let feed = tokio::spawn(feed(
        opened.durable,
        Arc::clone(&store),
        Arc::clone(&metrics),
        joiner.clone(),
    ));
    let publisher = Publisher::new(
        &opened.log,
        evidence.clone(),
        Arc::clone(&metrics),
        &config.publish,
    )?;
    let publishing = publisher.map(|publisher| tokio::spawn(publisher.run(opened.log.status())));
    let (stopping, stopped) = watch::channel(false);
    let gate = Gate::new(&config, &opened.log, &metrics)?;
    let readers_changes = gate.admission.changes();
    let ingest = Ingest::new(Arc::clone(&opened.log), Arc::clone(&metrics), stopped.clone())
        .admitting(gate.admission.clone())
        .telling_time(timing)
        .into_service();
    let mut grpc_server = tokio::spawn(grpc.serve(ingest, gate, Arc::clone(&metrics), stopped.clone()));
    if let Some(tls) = &web_tls {
        tokio::spawn(keep_current(Arc::downgrade(tls), readers_changes));
    }
    let questions = Turns::at_questions();
    let views = views.map(|listener| {
        let sql = Sql {
            store: Arc::clone(&store),
            access: Arc::clone(&access),
            accesses: accesses.clone(),
            questions: questions.clone(),
            metrics: Arc::clone(&metrics),
            tls: web_tls.clone(),
        };
        tokio::spawn(sql.serve(listener, stopped.clone()))
    });
    let app = http::App {
        store: Arc::clone(&store),
        metrics: Arc::clone(&metrics),
        evidence: evidence.clone(),
        status: opened.log.status(),
        accesses,
        access,
        names: http::Names::of(&config.http.names, web_tls.clone()),
        questions,
    };
    let web = http::Readers::of(web, web_tls, &metrics, stopped.clone())?;
    // Whom the connection is from goes with what passes through `tap_io` only.
    let web = web.tap_io(|_| ());
    let health = match config.metrics.listen {
        Some(address) => {
            let listener = bind("metrics.listen", address).await?;
            Some(tokio::spawn(http::health(
                listener,
                Arc::clone(&metrics),
                stopped.clone(),
            )))
        }
        None => None,
    };
    let router = http::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let mut http_server = tokio::spawn(
        axum::serve(web, router)
            .with_graceful_shutdown(until(stopped))
            .into_future(),
    );
    tracing::info!(
        data = %config.data.display(), store = %site, grpc = %grpc_address, http = %web_address, sql = views_address.map(display), batches = held,
        "the collector is serving"
    );

    let mut ended = opened.ended;
    let mut log_result = None;
    let outcome = tokio::select! {
        () = stop => Ok(()),
        result = &mut ended => {
            log_result = Some(());
            match result {
                Ok(Err(error)) => Err(error),
                _ => Err(anyhow!("the evidence log ended by itself")),
            }
        }
        result = &mut grpc_server => Err(anyhow!("the gRPC server ended: {result:?}")),
        result = &mut http_server => Err(anyhow!("the HTTP server ended: {result:?}")),
    };
    tracing::info!("the collector is stopping");
    stopping.send_replace(true);
    if let Some(joiner) = joiner {
        joiner.stop();
    }
    for task in watching
        .into_iter()
        .chain(publishing)
        .chain(custody)
        .chain(keeping)
        .chain(hearing)
    {
        task.abort();
    }
    if !grpc_server.is_finished() {
        _ = tokio::time::timeout(HTTP_GRACE, &mut grpc_server).await;
        grpc_server.abort();
    }
    if let Some((accesses, originator, telling)) = accessing {
        telling.abort();
        accesses.say_all(&originator).await;
    }
    let closed = if log_result.is_none() {
        opened.log.close().await;
        ended
            .await
            .unwrap_or_else(|_| Err(anyhow!("the evidence log's thread died")))
    } else {
        Ok(())
    };
    if let Some(alarming) = alarming {
        alarming.abort();
    }
    if let Some(telling) = telling {
        // What it has not come to, the next start does.
        telling.abort();
    }
    // The log's end closed the feed; what it still held goes into the store before that is sealed.
    feed.await.context("the store's feed died")?;
    let sealed = store.seal().await;
    if !http_server.is_finished() {
        _ = tokio::time::timeout(HTTP_GRACE, &mut http_server).await;
        http_server.abort();
    }
    if let Some(health) = health {
        health.abort();
    }
    if let Some(mut views) = views {
        _ = tokio::time::timeout(HTTP_GRACE, &mut views).await;
        views.abort();
    }
    outcome.and(closed).and(sealed)
}

/// Who is let in, and how.
struct Gate {
    admission: Admission,
    tls: Option<Arc<Tls>>,
    enrolment: Option<EnrolmentService>,
}

impl Gate {
    fn new(config: &Config, log: &Arc<Log>, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let own = config.trust.certificate.is_none();
        let registry = Registry::in_data(&config.data);
        registry.create()?;
        let admission = Admission::by(&config.data, own);
        if !config.tls() {
            return Ok(Self {
                admission,
                tls: None,
                enrolment: None,
            });
        }
        let authorities = if own {
            let origin = log.status().borrow().origin.clone();
            let name = origin.strip_prefix(ORIGIN_PREFIX).unwrap_or(&origin);
            Own::open(&registry, name)?;
            Authorities::Own(registry.clone())
        } else {
            Authorities::Given(config.trust.clone())
        };
        let tls = Arc::new(Tls::new(authorities)?);
        tokio::spawn(keep_current(Arc::downgrade(&tls), admission.changes()));
        let reviewer = config
            .trust
            .service_account
            .as_ref()
            .map(Reviewer::new)
            .transpose()?;
        if let Some(reviewer) = reviewer.clone() {
            tokio::spawn(reviewer.publish(registry.clone(), admission.changes()));
        }
        let enrolment = own.then(|| EnrolmentService {
            registry,
            reviewer,
            admission: admission.clone(),
            log: Arc::clone(log),
            metrics: Arc::clone(metrics),
            lifetime_s: config.trust.lifetime_s,
            turn: Arc::default(),
        });
        Ok(Self {
            admission,
            tls: Some(tls),
            enrolment,
        })
    }
}

/// Reads certificates again when something changes, and each hour: an operator replaces his files.
async fn keep_current(tls: Weak<Tls>, mut changes: watch::Receiver<u64>) {
    loop {
        _ = tokio::time::timeout(RELOAD, changes.changed()).await;
        let Some(tls) = tls.upgrade() else { return };
        if let Err(error) = tls.reload() {
            tracing::error!(
                error = format!("{error:#}"),
                "certificates cannot be read again; those that were read stay in effect"
            );
        }
    }
}

/// How often certificates are read again.
const RELOAD: Duration = Duration::from_secs(3600);

/// How often an agent that says nothing is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Where agents are awaited.
enum Agents {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile, Place),
}

impl Agents {
    async fn await_at(place: &Place) -> anyhow::Result<Self> {
        Ok(match place {
            Place::Tcp(address) => Self::Tcp(bind("grpc.listen (--grpc)", *address).await?),
            Place::Unix(path) => {
                let (listener, file) = place::listen(path)?;
                Self::Unix(listener, file, place.clone())
            }
        })
    }

    fn place(&self) -> anyhow::Result<Place> {
        Ok(match self {
            Self::Tcp(listener) => Place::Tcp(listener.local_addr()?),
            Self::Unix(_, _, place) => place.clone(),
        })
    }

    async fn serve(
        self,
        ingest: DeliveryServer<Ingest>,
        gate: Gate,
        metrics: Arc<Metrics>,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), tonic::transport::Error> {
        let router = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(ingest)
            .add_optional_service(gate.enrolment.map(EnrolmentService::into_service));
        match (self, gate.tls) {
            (Self::Tcp(listener), Some(tls)) => {
                let incoming = admit_connections(listener, tls, metrics, stopped.clone());
                router
                    .serve_with_incoming_shutdown(incoming, until(stopped))
                    .await
            }
            (Self::Tcp(listener), None) => {
                let incoming = TcpListenerStream::new(listener);
                router
                    .serve_with_incoming_shutdown(incoming, until(stopped))
                    .await
            }
            // The file goes when the last stream has ended.
            (Self::Unix(listener, _file, _), _) => {
                let incoming = UnixListenerStream::new(listener);
                router
                    .serve_with_incoming_shutdown(incoming, until(stopped))
                    .await
            }
        }
    }
}

async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}: stop what uses the port, or set {setting}"))
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is stopping too.
    _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Gives the store what the log holds and its files do not.
async fn refill(evidence: &Path, store: &Store, metrics: &Metrics, held: u64) -> anyhow::Result<()> {
    let from = store.resume_point().unwrap_or(0);
    ensure!(
        from <= held,
        "the store has {from} batches, the evidence log only {held}: rebuild the store (pgwitness-collector rebuild)"
    );
    let filled = rebuild::hand_over(evidence, store, |_| {}).await?;
    metrics.store_rows.inc_by(filled.events);
    Ok(())
}

/// Hands durable batches to the store and to the join, in log order. Whoever speaks in the log must not be waited for here:
/// the log waits for this.
async fn feed(
    mut durable: mpsc::Receiver<Durable>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    joiner: Option<Arc<Joiner>>,
) {
    while let Some(batch) = durable.recv().await {
        metrics.store_rows.inc_by(batch.events.records.len() as u64);
        if let Some(joiner) = &joiner {
            joiner.see(batch.log_index, &batch.events);
        }
        store.append(batch.log_index, batch.events).await;
    }
}

/// The collector's own chain, and its name; without it everything else goes on.
async fn own_chain(log: &Arc<Log>) -> Option<(String, Arc<Mutex<Originator>>)> {
    let enrolled = Originator::enrol(log).await;
    enrolled
        .map(|originator| (originator.id().to_owned(), Arc::new(Mutex::new(originator))))
        .map_err(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "sessions are not joined with what other hosts saw, and alarms are not recorded"
            );
        })
        .ok()
}
