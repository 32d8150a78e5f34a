import Base
import Features

package enum APIModule {}
/// Errors of routes and wire formats.
package typealias APIError = Failure<APIModule>

/// What the routes and the command line may ask of a node: views, the log's status, audits. Every answer is JSON and says
/// what it is as of.
package protocol NodeReading: AnyObject, Sendable {
    func status() throws -> JSON
    func topicList() throws -> JSON
    func features(view: String, key: String) async throws -> JSON
    /// Features of many keys in one call, as of now.
    func onlineFeatures(_ question: FeatureQuestion) async throws -> FeatureAnswer
    /// The same for a thread that must not wait; nil where it would have to, and for every mistake.
    func onlineFeaturesNow(_ question: FeatureQuestion) -> FeatureAnswer?
    /// The same as of a time or position of the past, folded again from the log.
    func pastOnlineFeatures(_ question: FeatureQuestion, asOf: String) throws -> FeatureAnswer
    /// Makes a version of a dataset: `{dataset, isNew}`.
    func createDataset(_ request: JSON) throws -> JSON
    func datasetList() throws -> JSON
    /// - Parameter reference: `NAME@VERSION`, or `NAME` for its newest version.
    func dataset(_ reference: String) throws -> JSON
    func datasetDifference(_ left: String, _ right: String) throws -> JSON
    func verifyDataset(_ reference: String) throws -> JSON
    /// - Parameters:
    ///   - format: parquet, arrow, csv, jsonl, or files.
    ///   - path: a file or folder on the node's machine that is not there yet.
    func exportDataset(_ reference: String, format: String, to path: String) throws -> JSON
    func pinDataset(_ reference: String) throws -> JSON
    /// Takes a version away, and frees the space of what is in no other.
    /// - Parameter reference: `NAME@VERSION`.
    func removeDataset(_ reference: String) throws -> JSON
    func addFiles(_ name: String, directory: String) throws -> JSON
    /// Views, entities and services that are in force.
    func featureCatalog() throws -> FeatureCatalog
    /// What is known of a view or derived view.
    func viewDetail(_ name: String) throws -> JSON
    /// The features as they were at a moment of the past, folded again from the log; nil is the end of the log.
    func pastFeatures(view: String, key: String, asOf: String?) throws -> JSON
    func report(_ name: String) throws -> JSON
    func lineage(_ node: String, depth: Int?) throws -> JSON
    func sql(_ statement: String) throws -> JSON
    func audit(_ kind: String, _ subject: String) throws -> JSON
    /// - Parameter processor: a stream's name; nil is the workspace's own topology.
    func replay(to: String?, processor: String?) throws -> JSON
    func definitions() throws -> JSON
    /// What is folded: stages with their topics and stores, also as text and as a Mermaid chart.
    func topology() throws -> JSON
    func apply(_ definitions: JSON) throws -> JSON
    /// What that would do; nothing is changed.
    func plan(_ definitions: JSON) throws -> JSON
    /// Takes definitions out of force: `KIND/NAME` each.
    func remove(_ definitions: [String]) throws -> JSON
    func console() throws -> JSON
    func logInspection() throws -> JSON
    func logVerification() throws -> JSON
    func erase(_ subject: String) throws -> JSON
    func letters(topic: String?, code: String?, all: Bool, limit: Int) throws -> JSON
    func letter(_ position: String) throws -> JSON
    /// - Parameter request: `{"positions": [...]}` or `{"all": true, "topic", "code"}`, with `"now"` and `"data"`.
    func retryLetters(_ request: JSON) async throws -> JSON
    /// What a stream's served table holds for a key, now or as of a time or position.
    /// - Parameter task: only this task is asked, and only on this node.
    func view(stream: String, view: String, key: String, asOf: String?, task: Int?) async throws -> JSON
    func logBackup(_ directory: String) throws -> JSON
    /// Builds what is derived and missing, and says what cannot be repaired.
    func logRepair(dryRun: Bool) throws -> JSON
    /// Where the events of all topics stand, in the order in which they came.
    func logOrder(from: Int64, limit: Int) throws -> JSON
    /// Gives what a pin holds to retention and compaction again.
    func unpin(_ name: String) throws -> JSON
    func metrics() throws -> String
    func readiness() -> (ready: Bool, reason: String)
}

/// HTTP status of an error: what the caller did wrong is 4xx by its code, what the world did is 503 or 507.
package func httpStatus(_ error: any DescribedError) -> Int {
    switch error.code {
    case "unknown-topic", "unknown-view", "unknown-entity", "unknown-node", "unknown-model", "unknown-prediction",
        "not-found", "unknown-letter", "unknown-stream", "unknown-key",
        "unknown-report", "unknown-subject", "unknown-pin", "unknown-service", "unknown-feature", "unknown-dataset",
        "unknown-definition":
        return 404
    case "body-too-large", "event-too-large", "append-too-large": return 413
    case "schema-violation", "future-timestamp", "bad-id", "no-data", "no-subject", "reserved-member": return 422
    case "not-empty", "bad-backup", "pinned", "offset-conflict", "producer-fenced", "out-of-order-sequence":
        return 409
    case "reserved-topic", "reserved-name", "reserved-type", "reserved-attribute": return 403
    case "in-force", "definition-in-use", "topic-conflict", "fed-by-connector": return 409
    case "log-saturated", "busy": return 429
    // It does not come back by asking again; the message says from where on there is more.
    case "rot", "trimmed": return 410
    case "log-stopped", "disk-full": return 507
    default: break
    }
    switch error.fault {
    case .caller: return 400
    case .world: return 503
    case .headrace: return 500
    }
}
