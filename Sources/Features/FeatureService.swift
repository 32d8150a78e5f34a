import Base
import Catalog

/// A declared feature service: the features that a model or a caller reads together, by one name and in one order.
package final class FeatureService: Sendable {
    package static let kind = "FeatureService"

    package let name: String
    package let description: String
    package let owner: String
    package let tags: [String]
    /// In the order in which they are declared; a view alone stands for all of its features.
    package let features: [FeatureReference]

    package init(
        _ definition: Definition, names: FeatureNames
    ) throws(CatalogError) {
        var reader = try DefinitionReader(definition)
        name = try reader.legalName()
        description = try reader.optionalString("description") ?? ""
        owner = try reader.optionalString("owner") ?? ""
        tags = try reader.texts("tags")
        var features: [FeatureReference] = []
        for text in try reader.texts("features") {
            do {
                features += try FeatureReference.read(text, names)
            } catch {
                throw reader.failure(error.message, at: "features", code: error.code)
            }
        }
        try reader.finish()
        guard !features.isEmpty else { throw reader.failure("a service needs 'features': VIEW or VIEW:FEATURE") }
        for (index, feature) in features.enumerated() where features[..<index].contains(feature) {
            throw reader.failure("the feature '\(feature.text)' stands twice", at: "features")
        }
        self.features = features
    }
}

/// One feature of a view by their names.
package struct FeatureReference: Sendable, Hashable {
    package let view: String
    package let feature: String

    package init(view: String, feature: String) {
        self.view = view
        self.feature = feature
    }

    package var text: String { "\(view):\(feature)" }

    /// `VIEW:FEATURE`, or `VIEW` for all of them. A version behind the view (`VIEW@v2`, as Feast writes it) is not taken.
    package static func read(_ text: String, _ names: FeatureNames) throws(FeaturesError) -> [FeatureReference] {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        if parts.count == 2 {
            let reference = FeatureReference(view: parts[0], feature: parts[1])
            try names.requireThere(reference)
            return [reference]
        }
        guard let all = names.features(of: parts[0]) else {
            try names.requireThere(FeatureReference(view: parts[0], feature: ""))
            return []
        }
        return all.map { FeatureReference(view: parts[0], feature: $0) }
    }
}
