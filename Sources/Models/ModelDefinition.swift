import Base
import Catalog

package enum ModelsModule {}
/// Errors of models and serving.
package typealias ModelsError = Failure<ModelsModule>

/// Topics of the model life cycle.
package enum ModelTopics {
    package static let requested = "training.requested"
    /// Written by the training effector.
    package static let completed = "training.completed"
    /// Model bytes, written by the training effector in the same append as the completion.
    package static let artifacts = "models.artifacts"
    package static let registered = "models.registered"
    package static let deployed = "models.deployed"
    package static let rejected = "models.rejected"
    package static let served = "predictions.served"
    /// Written by Supervision's policies.
    package static let triggered = "retraining.triggered"
}

/// A declared model: what it answers, what it learns from and how.
package struct ModelDefinition: Sendable {
    package static let kind = "Model"

    package let name: String
    package let question: String
    /// First cut: so long after the first question, in milliseconds.
    package let firstCutAfter: Int64
    /// How far back a cut reaches, and its newest part that evaluates, in milliseconds.
    package let window: Int64
    package let evaluation: Int64
    /// When an answer counts: request + this, in stream time.
    package let availableAfter: Int64
    /// Parameters for the trainer, as written.
    package let parameters: JSON
    /// Score each question with the first model too, for comparison.
    package let shadowFirst: Bool
    /// First and last month (`2013-02`, in UTC) over which a report averages; nil averages every month.
    package let reportMonths: ClosedRange<String>?

    package init(_ definition: Definition) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.string("name")
        question = try reader.string("question")
        _ = try reader.optionalString("description")
        _ = try reader.optionalString("owner")
        let shadow = try reader.optionalString("shadow") ?? "none"
        guard ["none", "first"].contains(shadow) else {
            throw reader.failure("'shadow' is none or first", at: "shadow")
        }
        shadowFirst = shadow == "first"
        if var report = try reader.reader("report") {
            let first = try report.string("from")
            let last = try report.string("to")
            try report.finish()
            guard Instant("\(first)-01T00:00:00Z") != nil, Instant("\(last)-01T00:00:00Z") != nil, first <= last else {
                throw reader.failure("'report' takes two months such as 2013-02, 'from' not after 'to'", at: "report")
            }
            reportMonths = first...last
        } else {
            reportMonths = nil
        }
        guard var training = try reader.reader("training") else { throw reader.failure("'training' is missing") }
        firstCutAfter = try training.span("firstCutAfter")
        window = try training.span("window")
        evaluation = try training.span("evaluation")
        availableAfter = try training.optionalSpan("availableAfter") ?? 3_600_000
        guard let parameters = training.value("parameters"), parameters.object != nil else {
            throw training.failure("'parameters' is missing")
        }
        self.parameters = parameters
        try training.finish()
        try reader.finish()
        guard evaluation < window, evaluation < firstCutAfter else {
            throw reader.failure("'evaluation' must be shorter than 'window' and 'firstCutAfter'", at: "training")
        }
    }
}
