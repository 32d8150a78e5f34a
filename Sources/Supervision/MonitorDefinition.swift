import Base
import Catalog

package enum SupervisionModule {}
/// Errors of monitors and policies.
package typealias SupervisionError = Failure<SupervisionModule>

/// Topics of Supervision.
package enum MonitorTopics {
    package static let performance = "monitors.performance"
    package static let drift = "monitors.drift"
    package static let triggered = "retraining.triggered"
}

/// What is watched of a model, day by day in UTC.
package struct MonitorDefinition: Sendable {
    package static let kind = "Monitor"

    package let name: String
    package let model: String
    /// Days over which performance is also summed up.
    package let performanceDays: Int
    package let featureNames: [String]

    /// - Parameter features: the names of the model's features, in vector order.
    package init(_ definition: Definition, features: (String) throws(CatalogError) -> [String]) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.string("name")
        model = try reader.string("model")
        _ = try reader.optionalString("description")
        guard var performance = try reader.reader("performance") else {
            throw reader.failure("'performance' is missing")
        }
        let span = try performance.span("over")
        try performance.finish()
        guard var drift = try reader.reader("drift") else { throw reader.failure("'drift' is missing") }
        guard try drift.string("measure") == "psi" else { throw drift.failure("'measure' is psi", at: "measure") }
        guard try drift.string("every") == "1d" else { throw drift.failure("'every' is 1d", at: "every") }
        try drift.finish()
        try reader.finish()
        guard span % 86_400_000 == 0, span > 0 else {
            throw reader.failure("'performance.over' is a number of days", at: "performance")
        }
        performanceDays = Int(span / 86_400_000)
        featureNames = try features(model)
    }
}

/// When to retrain.
package struct PolicyDefinition: Sendable {
    package static let kind = "Policy"

    package let name: String
    package let model: String
    /// AUC may fall so far below the deployed model's evaluation.
    package let aucDrop: Double?
    package let minimumLabels: Int
    /// So many features above their own 99th percentile, so many days in a row.
    package let driftFeatures: Int?
    package let driftDays: Int
    /// Age of the deployed model in milliseconds.
    package let maximumAge: Int64?
    package let cooldown: Int64

    package init(_ definition: Definition) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.string("name")
        model = try reader.string("model")
        _ = try reader.optionalString("description")
        guard var when = try reader.reader("retrainWhen") else { throw reader.failure("'retrainWhen' is missing") }
        if var auc = try when.reader("auc") {
            aucDrop = try auc.optionalDouble("below") ?? 0.03
            minimumLabels = try auc.optionalInt("minimumLabels") ?? 0
            try auc.finish()
        } else {
            aucDrop = nil
            minimumLabels = 0
        }
        if var drift = try when.reader("drift") {
            driftFeatures = try drift.int("features", 1...10_000)
            driftDays = try drift.int("days", 1...365)
            try drift.finish()
        } else {
            driftFeatures = nil
            driftDays = 0
        }
        maximumAge = try when.optionalSpan("modelAge")
        try when.finish()
        cooldown = try reader.span("cooldown")
        try reader.finish()
    }
}
