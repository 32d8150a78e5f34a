import Base
import Catalog

/// A declared derived view: features that are worked out of other features, and of what a request (or a row of a dataset)
/// brings along, in the moment they are asked for. Nothing of it is kept.
package final class DerivedView: Sendable {
    package static let kind = "DerivedView"
    /// Before the name of what a request brings along.
    static let request = "request"

    enum Input: Sendable, Hashable {
        case feature(FeatureReference)
        case request(String)
    }

    package struct Feature: Sendable {
        package let name: String
        let program: CELProgram
        /// In the order of the program's slots.
        let inputs: [Input]
    }

    package let name: String
    package let description: String
    package let owner: String
    package let tags: [String]
    package let features: [Feature]

    package init(_ definition: Definition) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.legalName()
        description = try reader.optionalString("description") ?? ""
        owner = try reader.optionalString("owner") ?? ""
        tags = try reader.texts("tags")
        var features: [Feature] = []
        for var item in try reader.readers("features") {
            let name = try item.legalName()
            let source = try item.string("of")
            do {
                features.append(try DerivedView.feature(name, source))
            } catch {
                throw item.failure("of: \(error.message)", at: "of", code: "bad-expression")
            }
            try item.finish()
            guard !features.dropLast().contains(where: { $0.name == name }) else {
                throw item.failure("the feature '\(name)' stands twice", at: "name")
            }
        }
        try reader.finish()
        guard !features.isEmpty else { throw reader.failure("a derived view needs 'features': {name, of}") }
        self.features = features
    }

    private static func feature(_ name: String, _ source: String) throws(BaseError) -> Feature {
        var inputs: [Input] = []
        for chain in try CELProgram.names(in: source) {
            guard chain[0] != CELProgram.documentName else {
                throw BaseError(
                    "unknown-variable", "'data' is no view: a derived view sees no event, and no view of that name")
            }
            guard chain.count > 1 else {
                throw BaseError(
                    "unknown-variable",
                    "'\(chain[0])' is not known here: features are written VIEW.FEATURE, what a request brings request.NAME"
                )
            }
            let input: Input =
                chain[0] == request ? .request(chain[1]) : .feature(FeatureReference(view: chain[0], feature: chain[1]))
            if !inputs.contains(input) { inputs.append(input) }
        }
        let variables = inputs.map { input in
            switch input {
            case .feature(let reference): "\(reference.view).\(reference.feature)"
            case .request(let name): "\(request).\(name)"
            }
        }
        return Feature(name: name, program: try CELProgram(source, variables: variables), inputs: inputs)
    }

    /// The features that it is worked out of.
    package var references: [FeatureReference] {
        features.flatMap(\.inputs).compactMap { if case .feature(let reference) = $0 { reference } else { nil } }
    }

    /// Names of what a request brings along.
    package var requests: [String] {
        var seen: Set<String> = []
        return features.flatMap(\.inputs).compactMap { if case .request(let name) = $0 { name } else { nil } }.filter {
            seen.insert($0).inserted
        }
    }
}

/// The names of features that there are.
package struct FeatureNames: Sendable {
    package var views: [String: FeatureView]
    package var derived: [String: DerivedView]

    package init(views: [String: FeatureView], derived: [String: DerivedView] = [:]) {
        (self.views, self.derived) = (views, derived)
    }

    /// Features of a view in their order; nil where there is no such view.
    func features(of view: String) -> [String]? {
        views[view].map { $0.aggregates.map(\.name) } ?? derived[view].map { $0.features.map(\.name) }
    }

    func has(_ reference: FeatureReference) -> Bool {
        views[reference.view].map { $0.index(of: reference.feature) != nil }
            ?? derived[reference.view].map { $0.features.contains { $0.name == reference.feature } } ?? false
    }

    func requireThere(_ reference: FeatureReference) throws(FeaturesError) {
        guard let known = features(of: reference.view) else {
            let names = (Array(views.keys) + Array(derived.keys)).sorted().joined(separator: ", ")
            throw FeaturesError("unknown-view", "there is no feature view '\(reference.view)'; there are \(names)")
        }
        guard has(reference) else {
            throw FeaturesError(
                "unknown-feature",
                "the view '\(reference.view)' has no feature '\(reference.feature)'; it has \(known.joined(separator: ", "))"
            )
        }
    }

    /// Refuses a derived view of which a feature is missing, or that comes back to itself.
    package func check(_ definition: Definition) throws(CatalogError) {
        guard let view = derived[definition.name] else { return }
        let reader = try DefinitionReader(definition)
        guard views[view.name] == nil else {
            throw reader.failure("there is a feature view '\(view.name)' already", at: "name")
        }
        if !view.requests.isEmpty, views[DerivedView.request] != nil || derived[DerivedView.request] != nil {
            throw reader.failure("'request' is what a request brings along; no view may be called that", at: "features")
        }
        for reference in view.references {
            do { try requireThere(reference) } catch {
                throw reader.failure(error.message, at: "features", code: error.code)
            }
        }
        var done: Set<String> = []
        if let cycle = cycle(from: view.name, [], &done) {
            throw reader.failure(
                "it is worked out of itself: \(cycle.joined(separator: " reads "))", at: "features",
                code: "definition-cycle")
        }
    }

    private func cycle(from name: String, _ path: [String], _ done: inout Set<String>) -> [String]? {
        if let start = path.firstIndex(of: name) { return Array(path[start...]) + [name] }
        guard let view = derived[name], !done.contains(name) else { return nil }
        defer { done.insert(name) }
        for other in Set(view.references.map(\.view)).sorted() {
            if let found = cycle(from: other, path + [name], &done) { return found }
        }
        return nil
    }
}
