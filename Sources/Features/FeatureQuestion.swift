import Base

/// What is asked of the online store: features for entities, many at a time.
package struct FeatureQuestion: Sendable {
    /// A feature service's name; nil where the features are named.
    package var service: String?
    /// `VIEW:FEATURE`, or `VIEW` for all of its features.
    package var features: [String]
    /// Keys by the names they are given under, a list for each of equal length; nil for a key that is missing.
    /// What a request brings along for derived views stands here as well.
    package var entities: [(name: String, keys: [String?])]
    /// By entity and row, whether a key came as a text; empty where all did.
    package var isText: [[Bool]]

    package init(
        service: String?, features: [String], entities: [(name: String, keys: [String?])], isText: [[Bool]] = []
    ) {
        self.service = service
        self.features = features
        self.entities = entities
        self.isText = isText
    }

    /// What was given under a name, as values; nil where nothing was.
    package func values(_ name: String) -> [CELValue]? {
        guard let place = entities.firstIndex(where: { $0.name == name }) else { return nil }
        return entities[place].keys.enumerated().map { row, key in
            guard let key else { return .null }
            guard isText.indices.contains(place), !isText[place][row] else { return .string(key) }
            return key == "true"
                ? .bool(true) : key == "false" ? .bool(false) : Double(key).map { .double($0) } ?? .null
        }
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
