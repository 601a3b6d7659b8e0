//! One route a command.

use std::{future::Future, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use dagmesh_core::limits;
use futures::Stream;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    auth::{self, Guard},
    stream,
};
use crate::{
    api::{Api, ByteStream, ProgressSink, Result},
    error::NodeError,
    types::{
        AddRequest, AnnounceRequest, CatRequest, CidRequest, ConnectRequest, DagGetRequest, DagImportRequest,
        DagPutRequest, Done, FollowRequest, GcRequest, GetRequest, GroupCreateRequest, GroupJoinRequest,
        GroupLogRequest, GroupMembersRequest, GroupPublishRequest, GroupRequest, GroupWatchRequest, HeadRequest,
        IpniAdRequest, IpniAdsRequest, IpniAnnounceRequest, IpniFollowRequest, IpniPublishRequest, KeyImportRequest,
        KeyRequest, NamePublishRequest, NameResolveRequest, NameWatchRequest, PublishRequest, RecordGetRequest,
        RecordListRequest, RecordPutRequest, SyncRequest, TicketRequest, UnfollowRequest,
    },
};

/// What every route sees.
pub(super) struct Shared<A> {
    api: Arc<A>,
    stopping: CancellationToken,
}

impl<A> Clone for Shared<A> {
    fn clone(&self) -> Self {
        Self { api: Arc::clone(&self.api), stopping: self.stopping.clone() }
    }
}

pub(super) fn router<A: Api>(api: Arc<A>, guard: Guard, stopping: CancellationToken) -> Router {
    let commands = Router::new()
        .route("/id", short(|api: Arc<A>, _: Done| async move { api.id().await }))
        .route("/status", short(|api: Arc<A>, _: Done| async move { api.status().await }))
        .route("/peers", short(|api: Arc<A>, _: Done| async move { api.peers().await }))
        .route("/connect", short(|api: Arc<A>, ask: ConnectRequest| async move { api.connect(ask).await }))
        .route("/add", long(|api: Arc<A>, ask: AddRequest, sink| async move { api.add(ask, sink).await }))
        .route("/get", long(|api: Arc<A>, ask: GetRequest, sink| async move { api.get(ask, sink).await }))
        .route("/cat", octets(|api: Arc<A>, ask: CatRequest| async move { api.cat(ask).await }))
        .route("/ls", short(|api: Arc<A>, ask: CidRequest| async move { api.ls(ask).await }))
        .route("/dag/put", short(|api: Arc<A>, ask: DagPutRequest| async move { api.dag_put(ask).await }))
        .route(
            "/dag/get",
            octets(|api: Arc<A>, ask: DagGetRequest| async move { api.dag_get(ask).await.map(stream::once) }),
        )
        .route("/dag/stat", long(|api: Arc<A>, ask: CidRequest, sink| async move { api.dag_stat(ask, sink).await }))
        .route(
            "/dag/import",
            long(|api: Arc<A>, ask: DagImportRequest, sink| async move { api.dag_import(ask, sink).await }),
        )
        .route("/dag/export", octets(|api: Arc<A>, ask: CidRequest| async move { api.dag_export(ask).await }))
        .route("/publish", long(|api: Arc<A>, ask: PublishRequest, sink| async move { api.publish(ask, sink).await }))
        .route("/head", short(|api: Arc<A>, ask: HeadRequest| async move { api.head(ask).await }))
        .route("/announce", short(|api: Arc<A>, ask: AnnounceRequest| async move { api.announce(ask).await }))
        .route("/follow", long(|api: Arc<A>, ask: FollowRequest, sink| async move { api.follow(ask, sink).await }))
        .route("/follows", short(|api: Arc<A>, _: Done| async move { api.follows().await }))
        .route("/unfollow", short(|api: Arc<A>, ask: UnfollowRequest| async move { api.unfollow(ask).await }))
        .route("/sync", long(|api: Arc<A>, ask: SyncRequest, sink| async move { api.sync(ask, sink).await }))
        .route("/watch", events(|api: Arc<A>, _: Done| async move { api.watch().await }))
        .route("/ticket", short(|api: Arc<A>, ask: TicketRequest| async move { api.ticket(ask).await }))
        .route(
            "/ipni/publish",
            long(|api: Arc<A>, ask: IpniPublishRequest, sink| async move { api.ipni_publish(ask, sink).await }),
        )
        .route("/ipni/ad", short(|api: Arc<A>, ask: IpniAdRequest| async move { api.ipni_ad(ask).await }))
        .route("/ipni/entries", short(|api: Arc<A>, ask: IpniAdRequest| async move { api.ipni_entries(ask).await }))
        .route("/ipni/ads", short(|api: Arc<A>, ask: IpniAdsRequest| async move { api.ipni_ads(ask).await }))
        .route(
            "/ipni/follow",
            long(|api: Arc<A>, ask: IpniFollowRequest, sink| async move { api.ipni_follow(ask, sink).await }),
        )
        .route(
            "/ipni/announce",
            short(|api: Arc<A>, ask: IpniAnnounceRequest| async move { api.ipni_announce(ask).await }),
        )
        .route(
            "/group/create",
            short(|api: Arc<A>, ask: GroupCreateRequest| async move { api.group_create(ask).await }),
        )
        .route("/group/join", short(|api: Arc<A>, ask: GroupJoinRequest| async move { api.group_join(ask).await }))
        .route("/group/leave", short(|api: Arc<A>, ask: GroupRequest| async move { api.group_leave(ask).await }))
        .route("/group/list", short(|api: Arc<A>, _: Done| async move { api.group_list().await }))
        .route(
            "/group/publish",
            long(|api: Arc<A>, ask: GroupPublishRequest, sink| async move { api.group_publish(ask, sink).await }),
        )
        .route("/group/log", short(|api: Arc<A>, ask: GroupLogRequest| async move { api.group_log(ask).await }))
        .route(
            "/group/members",
            short(|api: Arc<A>, ask: GroupMembersRequest| async move { api.group_members(ask).await }),
        )
        .route("/group/state", short(|api: Arc<A>, ask: GroupRequest| async move { api.group_state(ask).await }))
        .route("/group/watch", events(|api: Arc<A>, ask: GroupWatchRequest| async move { api.group_watch(ask).await }))
        .route("/record/put", short(|api: Arc<A>, ask: RecordPutRequest| async move { api.record_put(ask).await }))
        .route("/record/get", short(|api: Arc<A>, ask: RecordGetRequest| async move { api.record_get(ask).await }))
        .route("/record/list", short(|api: Arc<A>, ask: RecordListRequest| async move { api.record_list(ask).await }))
        .route(
            "/name/publish",
            short(|api: Arc<A>, ask: NamePublishRequest| async move { api.name_publish(ask).await }),
        )
        .route(
            "/name/resolve",
            short(|api: Arc<A>, ask: NameResolveRequest| async move { api.name_resolve(ask).await }),
        )
        .route("/name/watch", events(|api: Arc<A>, ask: NameWatchRequest| async move { api.name_watch(ask).await }))
        .route("/key/gen", short(|api: Arc<A>, ask: KeyRequest| async move { api.key_gen(ask).await }))
        .route("/key/list", short(|api: Arc<A>, _: Done| async move { api.key_list().await }))
        .route("/key/export", short(|api: Arc<A>, ask: KeyRequest| async move { api.key_export(ask).await }))
        .route("/key/import", short(|api: Arc<A>, ask: KeyImportRequest| async move { api.key_import(ask).await }))
        .route("/gc", long(|api: Arc<A>, ask: GcRequest, sink| async move { api.gc(ask, sink).await }))
        .route("/repo/verify", long(|api: Arc<A>, _: Done, sink| async move { api.repo_verify(sink).await }))
        .route("/repo/stat", short(|api: Arc<A>, _: Done| async move { api.repo_stat().await }))
        .route("/shutdown", post(shutdown::<A>));
    Router::new()
        .nest("/api/v1", commands)
        .route("/health", get(health::<A>))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::new(guard), auth::guard))
        .with_state(Shared { api, stopping })
}

/// An answer at once.
fn short<A: Api, Q, T, F, Fut>(run: F) -> MethodRouter<Shared<A>>
where
    Q: DeserializeOwned + Send + 'static,
    T: Serialize,
    F: Fn(Arc<A>, Q) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send,
{
    post(async move |State(shared): State<Shared<A>>, ask: Ask<Q>| match ask.take(&shared) {
        Ok(ask) => match run(shared.api, ask).await {
            Ok(value) => json_response(StatusCode::OK, &json!({ "result": value })),
            Err(error) => error_response(&error),
        },
        Err(error) => error_response(&error),
    })
}

/// Progress, then an answer.
fn long<A: Api, Q, T, F, Fut>(run: F) -> MethodRouter<Shared<A>>
where
    Q: DeserializeOwned + Send + 'static,
    T: Serialize + Send + 'static,
    F: Fn(Arc<A>, Q, ProgressSink) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    post(async move |State(shared): State<Shared<A>>, ask: Ask<Q>| match ask.take(&shared) {
        Ok(ask) => {
            let (sink, progress) = ProgressSink::channel();
            stream::with_progress(run(shared.api, ask, sink), progress).await
        }
        Err(error) => error_response(&error),
    })
}

/// Bytes.
fn octets<A: Api, Q, F, Fut>(run: F) -> MethodRouter<Shared<A>>
where
    Q: DeserializeOwned + Send + 'static,
    F: Fn(Arc<A>, Q) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<ByteStream>> + Send,
{
    post(async move |State(shared): State<Shared<A>>, headers: HeaderMap, ask: Ask<Q>| match ask.take(&shared) {
        Ok(ask) => match run(shared.api, ask).await {
            Ok(bytes) => stream::octets(bytes, &headers).await,
            Err(error) => error_response(&error),
        },
        Err(error) => error_response(&error),
    })
}

/// Events, as they happen.
fn events<A: Api, Q, T, S, F, Fut>(run: F) -> MethodRouter<Shared<A>>
where
    Q: DeserializeOwned + Send + 'static,
    T: Serialize,
    S: Stream<Item = T> + Send + 'static,
    F: Fn(Arc<A>, Q) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<S>> + Send,
{
    post(async move |State(shared): State<Shared<A>>, ask: Ask<Q>| match ask.take(&shared) {
        Ok(ask) => match run(shared.api, ask).await {
            Ok(events) => stream::events(events, shared.stopping),
            Err(error) => error_response(&error),
        },
        Err(error) => error_response(&error),
    })
}

/// Begins to stop, and says so; the daemon does the rest.
async fn shutdown<A: Api>(State(shared): State<Shared<A>>) -> Response {
    shared.stopping.cancel();
    json_response(StatusCode::OK, &json!({ "result": Done {} }))
}

async fn health<A: Api>(State(shared): State<Shared<A>>) -> Response {
    if shared.stopping.is_cancelled() {
        json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "stopping" }))
    } else {
        json_response(StatusCode::OK, &json!({ "status": "ok" }))
    }
}

async fn unknown(request: Request) -> Response {
    error_response(&NodeError::not_found(format!(
        "there is no {} {}; commands are POST /api/v1/<command>",
        request.method(),
        request.uri().path()
    )))
}

/// The body of a request: JSON of at most [`limits::MAX_API_BODY_BYTES`]; an empty one is `{}`.
struct Ask<Q>(std::result::Result<Q, NodeError>);

impl<Q> Ask<Q> {
    /// The request, unless it was wrong or the node is stopping.
    fn take<A>(self, shared: &Shared<A>) -> Result<Q> {
        if shared.stopping.is_cancelled() { Err(NodeError::stopping()) } else { self.0 }
    }
}

impl<S: Send + Sync, Q: DeserializeOwned> FromRequest<S> for Ask<Q> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> std::result::Result<Self, Response> {
        let max = limits::MAX_API_BODY_BYTES;
        let too_large = || {
            let error = NodeError::usage(format!("the request has more than {max} bytes, or was cut short"));
            (StatusCode::PAYLOAD_TOO_LARGE, error_response(&error)).into_response()
        };
        // What says itself that it is too large is not read at all.
        let claimed = request.headers().get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        if claimed.is_some_and(|len: usize| len > max) {
            return Err(too_large());
        }
        let body = to_bytes(request.into_body(), max).await.map_err(|_| too_large())?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        Ok(Self(serde_json::from_slice(text).map_err(|error| NodeError::usage(format!("wrong request: {error}")))))
    }
}

/// `{"error": ...}` with the status of its kind.
pub(super) fn error_response(error: &NodeError) -> Response {
    let status = StatusCode::from_u16(error.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_response(status, &json!({ "error": error }))
}

fn json_response(status: StatusCode, value: &serde_json::Value) -> Response {
    let body = Body::from(Bytes::from(format!("{value}\n")));
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
