//! The same over HTTP: OpenAI's protocol, verdicts and rewards, and a page to talk to the model on.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use fisao_align::guided::Guidance;
use fisao_models::generation::FinishReason;
use fisao_runs::bundle::SpelledToken;
use fisao_runs::verify::Judged;
use futures_util::{Stream, stream};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::batching::{Batcher, Job, Update};
use crate::engine::{Engine, answer_length, checked_sampling};
use crate::metrics::Metrics;
use crate::openai::{
    ChatRequest, Choice, Completion, LogProbabilities, ModelList, Question, Said, Usage, Verdicts,
};
use crate::protocol::{Answer, ErrorCode, Failure};

/// The page.
const PAGE: &str = include_str!("page.html");
/// What the page may do: nothing but talk to this server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Seconds that a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Seconds without a byte after which the rest of a request is not waited for.
const SILENCE: Duration = Duration::from_secs(30);
/// Connections held at once.
const CONNECTIONS: usize = 1024;

/// How the server answers.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where it listens.
    pub address: SocketAddr,
    /// What requests have to carry as their bearer token, if anything.
    pub token: Option<String>,
    /// Most bytes of a request.
    pub body: usize,
    /// Most conversations that wait or are written.
    pub queue: usize,
    /// Longest time for one answer.
    pub deadline: Duration,
}

struct Server {
    engine: Arc<Engine>,
    batcher: Batcher,
    metrics: Arc<Metrics>,
    options: HttpOptions,
    /// Verdicts and rewards made at once.
    verdicts: Arc<Semaphore>,
    count: AtomicU64,
}

/// Answers until `stop` is raised, then finishes what is under way.
///
/// * `ready` — is told the address once requests are taken.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(
    engine: Engine,
    options: HttpOptions,
    stop: &Arc<AtomicBool>,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let engine = Arc::new(engine);
    let batcher = Batcher::start(&engine, options.queue, &metrics)?;
    let server = Arc::new(Server {
        engine,
        batcher,
        metrics,
        options,
        verdicts: Arc::new(Semaphore::new(1)),
        count: AtomicU64::new(0),
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&server, stop, ready))?;
    // Whoever still waits for a thread of the pool has been told that the server ends.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn run(
    server: &Arc<Server>,
    stop: &Arc<AtomicBool>,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(server.options.address).await.map_err(|error| {
        fisao_runs::failure::Refusal::new(format!(
            "cannot listen on {}: {error}",
            server.options.address
        ))
        .hint("is another server running there? --http 127.0.0.1:0 takes any free port")
    })?;
    ready(listener.local_addr()?);
    let router = router(server);
    let (graceful, connections) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    let raised = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::pin!(raised);
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await?;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut raised => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of files, mostly: what is open has to end first.
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(socket), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(permit);
        });
    }
    drop(listener);
    server.batcher.close();
    let patience = server.options.deadline + Duration::from_secs(1);
    let _ = tokio::time::timeout(patience, graceful.shutdown()).await;
    Ok(())
}

fn router(server: &Arc<Server>) -> Router {
    let open = Router::new().route("/healthz", get(|| async { "ok\n" })).route("/", get(page));
    let guarded = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/verify", post(verify))
        .route("/v1/score", post(score))
        .route("/v1/token-rewards", post(token_rewards))
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(Arc::clone(server), authorised));
    open.merge(guarded)
        .fallback(|| async {
            failed(
                StatusCode::NOT_FOUND,
                &Failure::new(ErrorCode::UnknownMethod, "there is nothing at this address"),
            )
        })
        .layer(DefaultBodyLimit::max(server.options.body))
        .layer(RequestBodyTimeoutLayer::new(SILENCE))
        .layer(middleware::from_fn_with_state(Arc::clone(server), counted))
        .with_state(Arc::clone(server))
}

/// Counts requests, and ends those that take too long before their answer begins.
async fn counted(
    State(server): State<Arc<Server>>,
    path: Option<MatchedPath>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let path = path.map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let started = Instant::now();
    let answer = tokio::time::timeout(server.options.deadline, next.run(request)).await;
    let response = answer.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", server.options.deadline.as_secs());
        refused(
            &Failure::new(ErrorCode::DeadlineExceeded, message)
                .hint("ask for less, or start the server with a larger --deadline"),
        )
    });
    server.metrics.requests.with_label_values(&[path.as_str(), response.status().as_str()]).inc();
    server.metrics.seconds.observe(started.elapsed().as_secs_f64());
    response
}

/// Asks for the token, where there is one.
async fn authorised(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    request: HttpRequest,
    next: Next,
) -> Response {
    if let Some(token) = &server.options.token {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !same(given.as_bytes(), token.as_bytes()) {
            let failure = Failure::new(ErrorCode::Unauthorised, "this server asks for a token")
                .hint("Authorization: Bearer …, with what --token says");
            return refused(&failure);
        }
    }
    next.run(request).await
}

/// Compares in a time that does not depend on where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, Html(PAGE)).into_response()
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    match server.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => refused(&Failure::new(ErrorCode::Internal, error.to_string())),
    }
}

async fn models(State(server): State<Arc<Server>>) -> Response {
    let engine = &server.engine;
    match engine.model_name() {
        Some((name, has_adapter)) => json_of(&ModelList::of(name, has_adapter, engine.remark())),
        None => json_of(&json!({ "object": "list", "data": [] })),
    }
}

async fn verify(state: State<Arc<Server>>, body: Bytes) -> Response {
    answered(state, body, Engine::verify).await
}

async fn score(state: State<Arc<Server>>, body: Bytes) -> Response {
    answered(state, body, Engine::score).await
}

async fn token_rewards(state: State<Arc<Server>>, body: Bytes) -> Response {
    answered(state, body, Engine::token_rewards).await
}

/// Answers on a thread of its own, as many at once as there is a use for.
async fn answered<T: DeserializeOwned + Send + 'static>(
    State(server): State<Arc<Server>>,
    body: Bytes,
    answer: impl FnOnce(&Engine, T) -> Result<Answer, Failure> + Send + 'static,
) -> Response {
    let params = match read(&body) {
        Ok(params) => params,
        Err(failure) => return refused(&failure),
    };
    drop(body);
    let Ok(_permit) = server.verdicts.acquire().await else {
        return refused(&Failure::new(ErrorCode::Busy, "the server is being shut down"));
    };
    let engine = Arc::clone(&server.engine);
    match tokio::task::spawn_blocking(move || answer(&engine, params)).await {
        Ok(Ok(answer)) => json_of(&answer),
        Ok(Err(failure)) => refused(&failure),
        Err(_) => refused(
            &Failure::new(ErrorCode::Internal, "the answer panicked")
                .hint(fisao_runs::failure::BUG),
        ),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { ErrorCode::InvalidParams } else { ErrorCode::InvalidJson };
        Failure::new(code, error.to_string())
    })
}

async fn chat(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    match begun(&server, body).await {
        Err(failure) => refused(&failure),
        Ok((talk, stream)) if stream => streamed(talk).into_response(),
        Ok((talk, _)) => match whole(talk).await {
            Ok(completion) => json_of(&completion),
            Err(failure) => refused(&failure),
        },
    }
}

/// An answer that is under way.
struct Talk {
    updates: UnboundedReceiver<Update>,
    question: Question,
    id: u64,
    prompt_tokens: usize,
}

/// Reads a question and puts it behind those that wait.
async fn begun(server: &Arc<Server>, body: Bytes) -> Result<(Talk, bool), Failure> {
    let request: ChatRequest = read(&body)?;
    drop(body);
    let Some((name, has_adapter)) = server.engine.model_name() else {
        return Err(server
            .engine
            .policy(true)
            .err()
            .unwrap_or_else(|| Failure::new(ErrorCode::Unavailable, "no model")));
    };
    let stream = request.stream;
    let question = request.question(name, has_adapter)?;
    let id = server.count.fetch_add(1, Ordering::Relaxed);
    let verified = question.verify || question.guided.is_some();
    if verified {
        server.engine.check_verifier()?;
    }
    let engine = Arc::clone(&server.engine);
    // Decoding an image takes a while, and this thread has others to listen to.
    let prepared = tokio::task::spawn_blocking(move || {
        let policy = engine.policy(question.adapter)?;
        let task = engine.question(policy, &question.parts, verified)?;
        let longest = answer_length(policy, task.prompt.len(), question.max_tokens)?;
        Ok::<_, Failure>((task, longest, question))
    });
    let prepared = prepared
        .await
        .map_err(|_| Failure::new(ErrorCode::Internal, "reading the image panicked"))?;
    let (task, longest, question) = prepared?;
    let prompt_tokens = task.prompt.len();
    let (sender, updates) = unbounded_channel();
    let job = Job {
        task,
        adapter: question.adapter,
        samples: question.samples,
        sampling: checked_sampling(longest, question.temperature, question.seed.unwrap_or(id))?,
        stop: question.stop.clone(),
        streamed: stream,
        verify: question.verify,
        deadline: Instant::now() + server.options.deadline,
        place: None,
        updates: sender,
    };
    if let Some(precision) = question.guided {
        // What may be taken back cannot be streamed token by token: each answer comes whole.
        let engine = Arc::clone(&server.engine);
        let permit = Arc::clone(&server.verdicts).acquire_owned().await;
        let permit =
            permit.map_err(|_| Failure::new(ErrorCode::Busy, "the server is being shut down"))?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            job.write_guided(&engine, precision);
        });
    } else {
        server.batcher.submit(job)?;
    }
    Ok((Talk { updates, question, id, prompt_tokens }, stream))
}

fn lost() -> Failure {
    Failure::new(ErrorCode::Internal, "the answer was lost").hint(fisao_runs::failure::BUG)
}

/// All of an answer.
async fn whole(mut talk: Talk) -> Result<Completion, Failure> {
    struct Parts {
        text: String,
        tokens: Vec<SpelledToken>,
        mentions: Vec<Judged>,
        finish: Option<FinishReason>,
        guided: Option<Guidance>,
    }
    let Question { samples, verify, logprobs, .. } = talk.question;
    let empty = || Parts {
        text: String::new(),
        tokens: Vec::new(),
        mentions: Vec::new(),
        finish: None,
        guided: None,
    };
    let mut parts: Vec<Parts> = std::iter::repeat_with(empty).take(samples).collect();
    let (mut open, mut written) = (samples, 0);
    while open > 0 {
        match talk.updates.recv().await.ok_or_else(lost)? {
            Update::Text { choice, text, tokens, mentions } => {
                let part = &mut parts[choice];
                part.text.push_str(&text);
                part.tokens.extend(tokens);
                for mention in mentions {
                    // What follows a word may deny it, after a verdict was given.
                    part.mentions.retain(|known| known.start != mention.start);
                    part.mentions.push(mention);
                }
            }
            Update::Done { choice, finish, tokens, guided } => {
                parts[choice].finish = Some(finish);
                parts[choice].guided = guided;
                written += tokens;
                open -= 1;
            }
            Update::Failed(failure) => return Err(failure),
        }
    }
    let mut completion = Completion::new(talk.id, "chat.completion", &talk.question.model);
    let choice =
        |(index, Parts { text, tokens, mentions, finish, guided }): (usize, Parts)| Choice {
            index,
            message: Some(Said { role: Some("assistant"), content: Some(text) }),
            finish_reason: finish,
            logprobs: logprobs.then(|| LogProbabilities::of(tokens)),
            fisao: (verify || guided.is_some()).then_some(Verdicts { mentions, guided }),
            ..Choice::default()
        };
    completion.choices = parts.into_iter().enumerate().map(choice).collect();
    completion.usage = Some(Usage::new(talk.prompt_tokens, written));
    Ok(completion)
}

/// An answer as it is written, event by event.
fn streamed(talk: Talk) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let open = talk.question.samples;
    let roles = (0..open).map(|index| {
        chunk(
            &talk,
            Choice {
                index,
                delta: Some(Said { role: Some("assistant"), content: Some(String::new()) }),
                ..Choice::default()
            },
        )
    });
    let first: Vec<Event> = roles.collect();
    let state = Progress { talk, open, written: 0, ended: false };
    let rest = stream::unfold(state, next_events);
    let events = stream::StreamExt::chain(stream::iter([first]), rest);
    let events =
        stream::StreamExt::flat_map(events, |events| stream::iter(events.into_iter().map(Ok)));
    Sse::new(events).keep_alive(KeepAlive::default())
}

struct Progress {
    talk: Talk,
    open: usize,
    written: usize,
    ended: bool,
}

async fn next_events(mut state: Progress) -> Option<(Vec<Event>, Progress)> {
    if state.ended {
        return None;
    }
    let update = state.talk.updates.recv().await.unwrap_or_else(|| Update::Failed(lost()));
    let Question { verify, logprobs, usage, .. } = state.talk.question;
    let events = match update {
        Update::Text { choice, text, tokens, mentions } => {
            let choice = Choice {
                index: choice,
                delta: Some(Said { role: None, content: Some(text) }),
                logprobs: logprobs.then(|| LogProbabilities::of(tokens)),
                fisao: (verify && !mentions.is_empty())
                    .then_some(Verdicts { mentions, guided: None }),
                ..Choice::default()
            };
            vec![chunk(&state.talk, choice)]
        }
        Update::Done { choice, finish, tokens, guided } => {
            state.open -= 1;
            state.written += tokens;
            let done = Choice {
                index: choice,
                delta: Some(Said::default()),
                finish_reason: Some(finish),
                fisao: guided.map(|guided| Verdicts { mentions: Vec::new(), guided: Some(guided) }),
                ..Choice::default()
            };
            let mut events = vec![chunk(&state.talk, done)];
            if state.open == 0 {
                if usage {
                    let mut last = Completion::new(
                        state.talk.id,
                        "chat.completion.chunk",
                        &state.talk.question.model,
                    );
                    last.usage = Some(Usage::new(state.talk.prompt_tokens, state.written));
                    events.push(event(&last));
                }
                events.push(Event::default().data("[DONE]"));
                state.ended = true;
            }
            events
        }
        Update::Failed(failure) => {
            state.ended = true;
            vec![event(&error_body(&failure))]
        }
    };
    Some((events, state))
}

fn chunk(talk: &Talk, choice: Choice) -> Event {
    let mut completion = Completion::new(talk.id, "chat.completion.chunk", &talk.question.model);
    completion.choices = vec![choice];
    event(&completion)
}

fn event(value: &impl Serialize) -> Event {
    let text = serde_json::to_string(value).unwrap_or_default();
    Event::default().data(text)
}

fn json_of(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            &Failure::new(ErrorCode::Internal, error.to_string()),
        ),
    }
}

fn refused(failure: &Failure) -> Response {
    let status = match failure.code {
        ErrorCode::UnknownMethod => StatusCode::NOT_FOUND,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Busy => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unauthorised => StatusCode::UNAUTHORIZED,
        ErrorCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    failed(status, failure)
}

fn failed(status: StatusCode, failure: &Failure) -> Response {
    let text = error_body(failure).to_string();
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], text).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// An error in OpenAI's form.
fn error_body(failure: &Failure) -> serde_json::Value {
    let kind = match failure.code {
        ErrorCode::Internal => "server_error",
        ErrorCode::Busy => "rate_limit_error",
        ErrorCode::Unauthorised => "authentication_error",
        _ => "invalid_request_error",
    };
    json!({ "error": { "message": failure.message, "type": kind, "param": null, "code": failure.code, "hint": failure.hint } })
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn tokens_are_the_same_only_in_all_their_bytes() {
        assert!(same(b"secret", b"secret"));
        assert!(!same(b"secret", b"secres"));
        assert!(!same(b"", b"secret"));
        assert!(!same(b"secret1", b"secret"));
    }
}
