import Base

/// What is asked of the online store: features for entities, many at a time.
package struct FeatureQuestion: Sendable {
    /// A feature service's name; nil where the features are named.
    package var service: String?
    /// `VIEW:FEATURE`, or `VIEW` for all of its features.
    package var features: [String]
    /// Keys by the names they are given under, a list for each of equal length; nil for a key that is missing.
    package var entities: [(name: String, keys: [String?])]

    package init(service: String?, features: [String], entities: [(name: String, keys: [String?])]) {
        self.service = service
        self.features = features
        self.entities = entities
    }

    /// How many rows are asked for; refused when the lists differ or are too long.
    package func rowCount() throws(FeaturesError) -> Int {
        guard let first = entities.first else {
            throw FeaturesError("no-entities", "'entities' is empty: it maps the name of a key to a list of keys")
        }
        for other in entities where other.keys.count != first.keys.count {
            throw FeaturesError(
                "uneven-entities",
                "'\(first.name)' has \(first.keys.count) keys and '\(other.name)' \(other.keys.count); give as many for each"
            )
        }
        guard first.keys.count <= Limits.onlineRows else {
            throw FeaturesError("too-many-rows", "\(Limits.onlineRows) rows may be asked for at once")
        }
        return first.keys.count
    }
}

/// How much a value may be trusted; the words are Feast's.
package enum FeatureStatus: String, Sendable {
    case present = "PRESENT"
    /// The key is known and the value is missing.
    case null = "NULL_VALUE"
    /// Nothing was ever seen of the key.
    case notFound = "NOT_FOUND"
    /// The key's newest event is older than the view's `ttl`; the value is withheld.
    case outsideMaxAge = "OUTSIDE_MAX_AGE"
}

/// One feature of all rows.
package struct FeatureColumn: Sendable {
    package let reference: FeatureReference
    /// NaN where there is none or a text stands.
    package var values: [Double] = []
    /// Texts by row; empty when there are none.
    package var texts: [String?] = []
    package var statuses: [FeatureStatus] = []
    /// Event time of the key's newest event, in milliseconds; nil when nothing was ever seen.
    package var times: [Int64?] = []
}

/// The answer to a question.
package struct FeatureAnswer: Sendable {
    package var columns: [FeatureColumn]
    /// Stream time that the values are as of.
    package var asOf: Instant
    /// The versions of the views that were read, by name, in the order in which they first stand.
    package var versions: [(view: String, version: Int64)]
    /// Of the service, where one was asked for.
    package var serviceVersion: Int64?

    package init(
        columns: [FeatureColumn], asOf: Instant, versions: [(view: String, version: Int64)], serviceVersion: Int64?
    ) {
        self.columns = columns
        self.asOf = asOf
        self.versions = versions
        self.serviceVersion = serviceVersion
    }
}

extension FeatureAnswer {
    /// Takes what another answer has of a part of the plan; the older of the two moments stands.
    package mutating func take(_ other: FeatureAnswer, _ part: FeaturePlan) {
        for read in part.reads { for (_, column) in read.features { columns[column] = other.columns[column] } }
        asOf = min(asOf, other.asOf)
    }
}

/// A question with its names resolved, ready to be read again and again.
package struct FeaturePlan: Sendable {
    /// One view with what is read of it.
    struct Read: Sendable {
        let view: FeatureView
        /// The name its keys are given under.
        let keyName: String
        /// Indices of features in the view, and the columns of the answer they go to.
        var features: [(feature: Int, column: Int)] = []
    }

    package let references: [FeatureReference]
    let reads: [Read]
    package let versions: [(view: String, version: Int64)]
    package let serviceVersion: Int64?

    /// What is read of some of the views; the columns keep their places.
    package func part(of names: Set<String>) -> FeaturePlan {
        FeaturePlan(
            references: references, reads: reads.filter { names.contains($0.view.name) }, versions: versions,
            serviceVersion: serviceVersion)
    }

    /// Names of the views that are read.
    package var viewNames: [String] { reads.map(\.view.name) }

    /// The views whose keys are given under a name.
    package func views(keyedBy name: String) -> String {
        reads.filter { $0.keyName == name }.map(\.view.name).joined(separator: ", ")
    }

    /// Names under which keys must be given.
    package var keyNames: [String] {
        var seen: Set<String> = []
        return reads.map(\.keyName).filter { seen.insert($0).inserted }
    }
}

/// Everything that can be asked for by name: views, entities and services that are in force, with their versions.
package struct FeatureCatalog: Sendable {
    package let views: [String: FeatureView]
    package let entities: [String: Entity]
    package let services: [String: FeatureService]
    /// Versions of the definitions by `KIND/NAME`.
    private let versions: [String: Int64]

    package init(views: [FeatureView], entities: [Entity], services: [FeatureService], versions: [String: Int64]) {
        self.views = Dictionary(views.map { ($0.name, $0) }) { $1 }
        self.entities = Dictionary(entities.map { ($0.name, $0) }) { $1 }
        self.services = Dictionary(services.map { ($0.name, $0) }) { $1 }
        self.versions = versions
    }

    /// The name that a view's keys are given under.
    package func keyName(of view: FeatureView) -> String {
        view.entity.map { entities[$0]?.joinKey ?? $0 } ?? view.keyName ?? "key"
    }

    package func version(of view: FeatureView) -> Int64 { versions["\(FeatureView.kind)/\(view.name)"] ?? 1 }
    package func version(of service: FeatureService) -> Int64 {
        versions["\(FeatureService.kind)/\(service.name)"] ?? 1
    }

    package func plan(service name: String?, features: [String]) throws(FeaturesError) -> FeaturePlan {
        var references: [FeatureReference] = []
        var serviceVersion: Int64?
        if let name {
            guard let service = services[name] else {
                let known = services.keys.sorted().joined(separator: ", ")
                throw FeaturesError(
                    "unknown-service",
                    "there is no feature service '\(name)'; there are \(known.isEmpty ? "none" : known)")
            }
            references = service.features
            serviceVersion = versions["\(FeatureService.kind)/\(name)"] ?? 1
        }
        for text in features {
            references += try FeatureReference.read(text, views: views)
            guard references.count <= Limits.onlineFeatures else {
                throw FeaturesError("too-many-features", "\(Limits.onlineFeatures) features may be asked for at once")
            }
        }
        guard !references.isEmpty else {
            throw FeaturesError("no-features", "neither 'features' nor 'feature_service' names any feature")
        }
        var seen: Set<FeatureReference> = []
        if let repeated = references.first(where: { !seen.insert($0).inserted }) {
            throw FeaturesError("name-collision", "'\(repeated.text)' is asked for twice")
        }
        var reads: [FeaturePlan.Read] = []
        var used: [(view: String, version: Int64)] = []
        for (column, reference) in references.enumerated() {
            guard let view = views[reference.view], let feature = view.index(of: reference.feature) else {
                // Services are checked against the newest versions; one that is served until that has caught up may lack it.
                throw FeaturesError(
                    "backfilling",
                    "'\(reference.text)' is of a version of its view that has not caught up with the log yet; ask again",
                    fault: .world, retriable: true)
            }
            if let at = reads.firstIndex(where: { $0.view === view }) {
                reads[at].features.append((feature, column))
            } else {
                reads.append(FeaturePlan.Read(view: view, keyName: keyName(of: view), features: [(feature, column)]))
                used.append((view.name, version(of: view)))
            }
        }
        return FeaturePlan(references: references, reads: reads, versions: used, serviceVersion: serviceVersion)
    }
}
