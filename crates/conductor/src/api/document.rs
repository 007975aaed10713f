//! The API's document: what is the same for many calls.

use std::collections::BTreeMap;

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    Content, ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type,
    example::ExampleBuilder, schema::Schema,
};
use utoipa::{IntoResponses, Modify, OpenApi};

use crate::api::error::{ErrorKind, PROBLEM_JSON};
use crate::api::webhooks::Webhooks;
use crate::api::words::{DetailWord, ProblemBody, problem_example};

/// The document without its calls, which come from the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Conductor",
        description = "A self-hosted messaging gateway. Send a notification with one request: once it is answered with \
            202, it is stored and will be delivered, or it stands in the dead letters with the reason.",
    ),
    tags(
        (name = "Notifications", description = "Send, look up, list."),
        (name = "Dead letters", description = "Try again, take back, settle by hand."),
        (name = "Channels", description = "The tenant's channels and how they go."),
        (name = "Callbacks", description = "Where the tenant hears of state changes, and what it is told."),
        (name = "Server", description = "Whether it works, what it counts, how it is described."),
    ),
    components(schemas(ProblemBody, DetailWord)),
    modifiers(&Keys, &Webhooks)
)]
pub(crate) struct ApiDocument;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = |about: &str| {
            let mut http = Http::new(HttpAuthScheme::Bearer);
            http.description = Some(about.to_owned());
            SecurityScheme::Http(http)
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "tenantKey",
            scheme("The tenant's key. `Authorization: <key>` without `Bearer` is accepted too."),
        );
        components.add_security_scheme(
            "operatorKey",
            scheme(
                "The operator's key, `CONDUCTOR_ADMIN_KEY`. Where none is configured, `/metrics` needs none, and what \
                 changes something is off.",
            ),
        );
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident),+;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;
        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                problems(&[$(ErrorKind::$kind),+])
            }
        }
    )+};
}

refusals! {
    /// What every call can answer.
    AnyRefusal: Internal;
    /// What a call that needs the store can answer.
    StoreRefusal: Unavailable, Internal;
    /// What the list of channels can answer.
    ChannelRefusal: MissingKey, WrongKey, RateLimited, Internal, Unavailable;
    /// What a list can answer.
    ListRefusal: Invalid, MissingKey, WrongKey, RateLimited, Internal, Unavailable;
    /// What a look-up can answer.
    LookUpRefusal: MissingKey, WrongKey, NotFound, RateLimited, Internal, Unavailable;
    /// What `POST /notifications` can answer.
    SendRefusal: MalformedJson, Invalid, MissingKey, WrongKey, Timeout, InFlight, TooLarge, MediaType, KeyReused,
        RateLimited, QueueFull, Internal, NotSent, Unavailable;
    /// What `POST /notifications/batch` can answer as a whole.
    BatchRefusal: MalformedJson, Invalid, MissingKey, WrongKey, Timeout, InFlight, TooLarge, MediaType, KeyReused,
        RateLimited, Internal, Unavailable;
    /// What `POST /notifications/retry` can answer.
    BulkRefusal: MalformedJson, Invalid, MissingKey, WrongKey, Timeout, RetriesRunning, TooLarge, MediaType,
        RateLimited, Internal, Unavailable;
    /// What `POST /notifications/{id}/retry` can answer.
    RetryRefusal: MalformedJson, Invalid, MissingKey, WrongKey, NotFound, Timeout, WrongStatus, Redacted, TooLarge,
        MediaType, RateLimited, Internal, Unavailable;
    /// What a change of a notification's status can answer.
    ChangeRefusal: MissingKey, WrongKey, NotFound, WrongStatus, RateLimited, Internal, Unavailable;
    /// What `/metrics` can answer.
    OperatorRefusal: MissingKey, WrongKey, Internal;
    /// What `POST /reload` can answer.
    ReloadRefusal: MissingKey, WrongKey, NoOperator, BadConfiguration, Internal, Unavailable;
    /// What a provider's receipt can be answered.
    ReceiptRefusal: Invalid, WrongSignature, NotFound, Timeout, TooLarge, Internal, Unavailable;
    /// What a provider can be answered that checks the address for receipts.
    ReceiptCheckRefusal: WrongSignature, NotFound, Internal;
}

fn problems(kinds: &[ErrorKind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<ErrorKind>> = BTreeMap::new();
    // Whatever can fail is counted.
    let counts = kinds.iter().any(|kind| matches!(kind, ErrorKind::WrongKey | ErrorKind::WrongSignature));
    for kind in kinds.iter().chain(counts.then_some(&ErrorKind::TooManyFailures)) {
        by_status.entry(kind.status().as_u16()).or_default().push(*kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), RefOr::T(problem(&kinds)))).collect()
}

fn problem(kinds: &[ErrorKind]) -> Response {
    let about: Vec<_> = kinds.iter().map(|kind| kind.about()).collect();
    let content: Content = ContentBuilder::new()
        .schema(Some(RefOr::<Schema>::Ref(Ref::from_schema_name("Problem"))))
        .examples_from_iter(kinds.iter().map(|kind| {
            let example = ExampleBuilder::new().summary(kind.title()).value(Some(problem_example(*kind)));
            (kind.slug(), example.build())
        }))
        .build();
    let mut response = ResponseBuilder::new().description(about.join(" ")).content(PROBLEM_JSON, content);
    for (name, about) in headers(kinds) {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let header = HeaderBuilder::new().schema(Some(text)).description(Some(about));
        response = response.header(name, header.build());
    }
    response.build()
}

fn headers(kinds: &[ErrorKind]) -> Vec<(&'static str, &'static str)> {
    match kinds.first() {
        Some(ErrorKind::MissingKey) => vec![("WWW-Authenticate", "`Bearer`")],
        Some(ErrorKind::RateLimited | ErrorKind::QueueFull | ErrorKind::TooManyFailures) => vec![
            ("Retry-After", "Seconds after which the next request is allowed."),
            ("RateLimit", "What is left, and for how many seconds (`r`, `t`)."),
            ("RateLimit-Policy", "What is allowed (`q`) in which time in seconds (`w`)."),
        ],
        Some(ErrorKind::Unavailable | ErrorKind::InFlight) => {
            vec![("Retry-After", "Seconds after which to try again.")]
        }
        _ => Vec::new(),
    }
}
