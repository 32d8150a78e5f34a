import Base
import Catalog

/// A declared question: asked once per event of a topic, at a moment of stream time, with the features as of then; the
/// truth arrives later on another topic.
package final class Question: Sendable {
    package static let kind = "Question"

    /// Where one value of the vector comes from.
    package enum Column: Sendable {
        /// Number of the read, and of the view's feature; as a category it is numbered as texts of the event are.
        case view(Int, feature: Int, isCategory: Bool)
        case number(CELProgram)
        /// A text, numbered in the order in which its values first appear.
        case category(CELProgram)
    }

    package let name: String
    package let topic: String
    package let featureNames: [String]
    package let description: String
    let id: CELProgram
    let askAt: CELProgram
    let reportAt: CELProgram?
    let filter: CELProgram?
    /// Distinct (view, key expression) pairs that the vector reads.
    let reads: [(view: String, key: CELProgram)]
    let columns: [Column]
    /// Features whose values are category numbers.
    package let categories: Set<String>

    package init(_ definition: Definition, views: [String: FeatureView]) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.string("name")
        topic = try reader.string("topic")
        description = try reader.optionalString("description") ?? ""
        id = try reader.requiredExpression("id")
        askAt = try reader.requiredExpression("askAt")
        reportAt = try reader.expression("reportAt")
        filter = try reader.expression("filter")
        // The truth belongs to Datasets; it is read there.
        _ = reader.value("truth")
        var names: [String] = []
        var reads: [(view: String, key: CELProgram)] = []
        var columns: [Column] = []
        var categories: Set<String> = []
        for var item in try reader.readers("features") {
            let name = try item.string("name")
            let encode = try item.optionalString("encode") ?? "number"
            guard ["number", "category"].contains(encode) else {
                throw item.failure("'encode' is number or category", at: "encode")
            }
            if encode == "category" { categories.insert(name) }
            if let viewName = try item.optionalString("view") {
                guard let view = views[viewName] else {
                    throw item.failure("there is no feature view '\(viewName)'", at: "view")
                }
                let feature = try item.optionalString("feature") ?? name
                guard let index = view.index(of: feature) else {
                    throw item.failure(
                        "the view '\(viewName)' has no feature '\(feature)'; it has \(view.aggregates.map(\.name).joined(separator: ", "))"
                    )
                }
                let key = try item.requiredExpression("key")
                var read = reads.firstIndex { $0.view == viewName && $0.key.source == key.source }
                if read == nil {
                    reads.append((viewName, key))
                    read = reads.count - 1
                }
                columns.append(.view(read ?? 0, feature: index, isCategory: encode == "category"))
            } else {
                guard let program = try item.expression("of") else { throw item.failure("'view' or 'of' is missing") }
                columns.append(encode == "category" ? .category(program) : .number(program))
            }
            try item.finish()
            guard !names.contains(name) else { throw item.failure("the feature '\(name)' stands twice", at: "name") }
            names.append(name)
        }
        try reader.finish()
        guard !names.isEmpty else { throw reader.failure("a question needs 'features'") }
        featureNames = names
        self.reads = reads
        self.columns = columns
        self.categories = categories
    }

    /// Everything it evaluates over its topic's data.
    package var expressions: [CELProgram] {
        [id, askAt, reportAt, filter].compactMap { $0 } + reads.map(\.key)
            + columns.compactMap { column in
                switch column {
                case .view: nil
                case .number(let program), .category(let program): program
                }
            }
    }

    /// The features that it reads.
    package func references(in views: [String: FeatureView]) -> [FeatureReference] {
        columns.compactMap { column in
            guard case .view(let number, let feature, _) = column, let view = views[reads[number].view] else {
                return nil
            }
            return FeatureReference(view: view.name, feature: view.aggregates[feature].name)
        }
    }
}
