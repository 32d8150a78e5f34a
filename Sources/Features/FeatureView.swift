import Base
import Catalog

package enum FeaturesModule {}
/// Errors of feature views and questions.
package typealias FeaturesError = Failure<FeaturesModule>

/// What is computed over the events of one key.
package enum AggregateFunction: String, Sendable, CaseIterable {
    case count, sum, mean, min, max
    /// Of the newest event, missing when it is missing there.
    case last
    /// Since the newest event.
    case secondsSince, hoursSince

    var needsWindow: Bool { ![.last, .secondsSince, .hoursSince].contains(self) }
    var needsValue: Bool { ![.count, .secondsSince, .hoursSince].contains(self) }
}

/// One feature of a view.
package struct Aggregate: Sendable {
    package let name: String
    package let function: AggregateFunction
    /// Index of the value column; nil for functions that only look at times.
    package let column: Int?
    /// Length of the window (t - span, t], in milliseconds; nil for functions of the newest event.
    package let span: Int64?
    let window: Int
}

/// A declared feature view: which events, keyed how, aggregated into which features.
package final class FeatureView: Sendable {
    package static let kind = "FeatureView"

    package let name: String
    package let topic: String
    package let description: String
    let key: CELProgram
    let filter: CELProgram?
    /// Distinct value expressions.
    let columns: [CELProgram]
    /// Distinct window lengths.
    let spans: [Int64]
    package let aggregates: [Aggregate]
    private let indices: [String: Int]

    package init(_ definition: Definition) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.string("name")
        topic = try reader.string("topic")
        description = try reader.optionalString("description") ?? ""
        _ = try reader.optionalString("owner")
        key = try reader.requiredExpression("key")
        filter = try reader.expression("filter")
        var columns: [CELProgram] = []
        var spans: [Int64] = []
        var aggregates: [Aggregate] = []
        func column(_ program: CELProgram) -> Int {
            if let known = columns.firstIndex(where: { $0.source == program.source }) { return known }
            columns.append(program)
            return columns.count - 1
        }
        for var item in try reader.readers("aggregates") {
            let name = try item.string("name")
            let text = try item.string("function")
            guard let function = AggregateFunction(rawValue: text) else {
                throw item.failure(
                    "there is no function '\(text)'; known: \(AggregateFunction.allCases.map(\.rawValue).joined(separator: ", "))"
                )
            }
            let program = try item.expression("of")
            let span = try item.optionalSpan("window")
            try item.finish()
            guard (program != nil) == function.needsValue else {
                throw item.failure(function.needsValue ? "'\(text)' needs 'of'" : "'\(text)' takes no 'of'")
            }
            guard (span != nil) == function.needsWindow else {
                throw item.failure(function.needsWindow ? "'\(text)' needs 'window'" : "'\(text)' takes no 'window'")
            }
            if let span, !spans.contains(span) { spans.append(span) }
            let window = span.flatMap { spans.firstIndex(of: $0) } ?? -1
            aggregates.append(
                Aggregate(
                    name: name, function: function, column: program.map { column($0) }, span: span, window: window))
        }
        if let latest = reader.value("latest") {
            guard let members = latest.object else {
                throw reader.failure("'latest' maps feature names to expressions")
            }
            for (name, source) in JSON.sorted(members) {
                do {
                    let program = try CELProgram(source.string ?? "")
                    aggregates.append(
                        Aggregate(name: name, function: .last, column: column(program), span: nil, window: -1))
                } catch {
                    throw CatalogError("bad-expression", "\(reader.path), latest.\(name): \(error.message)")
                }
            }
        }
        try reader.finish()
        guard !aggregates.isEmpty else { throw reader.failure("a view needs 'aggregates' or 'latest'") }
        var indices: [String: Int] = [:]
        for (index, aggregate) in aggregates.enumerated() {
            guard indices.updateValue(index, forKey: aggregate.name) == nil else {
                throw reader.failure("the feature '\(aggregate.name)' stands twice")
            }
        }
        self.columns = columns
        self.spans = spans
        self.aggregates = aggregates
        self.indices = indices
    }

    /// Everything it evaluates over its topic's data.
    package var expressions: [CELProgram] { [key, filter].compactMap { $0 } + columns }

    package func index(of feature: String) -> Int? { indices[feature] }

    /// The longest window, in milliseconds: what a reader of a value must know to find its inputs again.
    package var longestSpan: Int64 { spans.max() ?? 0 }
}
