import Base
import Catalog
import EventLog
import Features
import Foundation
import RecordFormat

/// The definitions that are in force, folded from the log.
package struct DefinitionRegistry: Sendable {
    package static let topic = "headrace.definitions"

    package struct Entry: Sendable {
        package let definition: Definition
        package let version: Int64
        package let position: String
        package let platform: Bool
        /// Of a topic: the version of its data at which the workspace's own fold reads it.
        package let reads: Int
        /// Of a feature view: it came when the workspace's fold had begun, and is folded beside it.
        package let isBeside: Bool
    }

    package private(set) var entries: [String: Entry] = [:]
    /// The feature views that the workspace's own fold folds: those that were there when it began.
    package private(set) var folded: [String: Entry] = [:]
    /// Every version of the views that are folded beside it, the oldest first.
    package private(set) var beside: [String: [Entry]] = [:]
    /// Of views folded beside it, the newest version that had caught up.
    package private(set) var live: [String: Int64] = [:]
    /// The last version of every definition that is or was in force: numbers are used once.
    private var versions: [String: Int64] = [:]
    static let liveType = "definition.live"
    static let removedType = "definition.removed"

    package init() {}

    package init(log: any EventLog) throws {
        try log.forEachEvent(TopicPartition(Self.topic, 0), passesDoubt: true) { event in
            guard let data = event.data, let json = try? JSON(parsing: data), let kind = json["kind"]?.string,
                let name = json["name"]?.string, let version = json["version"]?.int
            else { return true }
            guard let body = json["body"] else {
                let key = "\(kind)/\(name)"
                if event.type == Self.liveType { live[key] = version }
                if event.type == Self.removedType {
                    versions[key] = version
                    (entries[key], beside[key], live[key]) = (nil, nil, nil)
                    // What history was begun with stays in its fold, unread.
                    if json["begun"]?.bool != true { folded[key] = nil }
                }
                return true
            }
            let definition = Definition(kind: kind, name: name, body: body)
            let entry = Entry(
                definition: definition, version: version, position: "\(Self.topic)/0@\(event.offset)",
                platform: json["platform"]?.bool == true,
                reads: Int(json["reads"]?.int ?? Int64(1 + (body["upcasters"]?.array?.count ?? 0))),
                isBeside: json["beside"]?.bool == true)
            entries[definition.key] = entry
            versions[definition.key] = version
            if entry.isBeside {
                beside[definition.key, default: []].append(entry)
            } else if kind == FeatureView.kind {
                folded[definition.key] = entry
            }
            return true
        }
    }

    /// What the workspace's fold would fold of views, with these definitions in force.
    func folded(with definitions: [Definition], begun: Bool) -> [Definition] {
        var bodies = folded.mapValues(\.definition)
        if !begun { for view in definitions where view.kind == FeatureView.kind { bodies[view.key] = view } }
        return bodies.values.sorted { $0.key < $1.key }
    }

    /// The news that a version of a view has caught up.
    static func live(_ view: String, version: Int64, at time: Instant) -> NewEvent {
        let key = "\(FeatureView.kind)/\(view)"
        let data = JSON.object([
            "kind": .string(FeatureView.kind), "name": .string(view), "version": .int(version), "live": .bool(true),
        ])
        return NewEvent(
            id: "\(key)@\(version):live", source: "headrace:/definitions", type: liveType, time: time,
            key: [UInt8](key.utf8), data: data.canonical)
    }

    /// The number that the next version of a definition gets.
    func nextVersion(of key: String) -> Int64 { (versions[key] ?? 0) + 1 }

    /// The event that takes a definition out of force.
    func removal(of entry: Entry, begun: Bool, at time: Instant) -> NewEvent {
        let key = entry.definition.key
        let version = nextVersion(of: key)
        let data = JSON.object([
            "kind": .string(entry.definition.kind), "name": .string(entry.definition.name), "version": .int(version),
            "removed": .bool(true), "begun": .bool(begun),
        ])
        return NewEvent(
            id: "\(key)@\(version)", source: "headrace:/definitions", type: Self.removedType, time: time,
            key: [UInt8](key.utf8), data: data.canonical)
    }

    package func all(_ kind: String) -> [Entry] {
        entries.values.filter { $0.definition.kind == kind }.sorted { $0.definition.name < $1.definition.name }
    }

    /// What applying would do to one definition.
    package enum Change: String, Sendable { case create, unchanged, change }

    package func change(_ definition: Definition) -> Change {
        guard let known = entries[definition.key] else { return .create }
        return known.definition.body == definition.body ? .unchanged : .change
    }

    /// Whether a topic is changed by nothing but further upcasters, with what they make of its schema and description: that
    /// takes nothing from who reads it already.
    package func onlyContinues(_ definition: Definition) -> Bool {
        guard definition.kind == TopicDefinition.kind, let known = entries[definition.key],
            let old = try? TopicDefinition(known.definition), let new = try? TopicDefinition(definition),
            new.upcasting.continues(old.upcasting), new.upcasting.version > old.upcasting.version
        else { return false }
        func rest(_ body: JSON) -> [String: JSON] {
            (body.object ?? [:]).filter { !["upcasters", "schema", "description"].contains($0.key) }
        }
        return rest(known.definition.body) == rest(definition.body)
    }

    /// Whether a topic says the same in other words.
    func onlyDescribes(_ definition: Definition) -> Bool {
        guard definition.kind == TopicDefinition.kind, let known = entries[definition.key] else { return false }
        func rest(_ body: JSON) -> [String: JSON] { (body.object ?? [:]).filter { $0.key != "description" } }
        return rest(known.definition.body) == rest(definition.body)
    }

    /// Kinds that nothing is folded by: they may come and change while a history runs.
    static let namingKinds: Set<String> = [Entity.kind, DerivedView.kind, FeatureService.kind]

    /// The events that bring definitions into force; none for those that are already.
    /// - Parameter begun: the workspace's fold has begun: it goes on reading topics at the versions it began with.
    package func events(
        applying definitions: [Definition], platform: Bool, at time: Instant, begun: Bool
    ) -> [NewEvent] {
        definitions.filter { change($0) != .unchanged }.map { definition in
            let version = nextVersion(of: definition.key)
            var members: [String: JSON] = [
                "kind": .string(definition.kind), "name": .string(definition.name), "version": .int(version),
                "body": definition.body, "digest": .string(definition.digest.hex), "platform": .bool(platform),
            ]
            if begun, definition.kind == TopicDefinition.kind, let known = entries[definition.key] {
                members["reads"] = .int(Int64(known.reads))
            }
            if begun, definition.kind == FeatureView.kind { members["beside"] = .bool(true) }
            let data = JSON.object(members)
            return NewEvent(
                id: "\(definition.key)@\(version)", source: "headrace:/definitions", type: "definition.applied",
                time: time,
                key: [UInt8](definition.key.utf8), data: data.canonical)
        }
    }
}

/// The definitions compiled into what the node runs.
package struct CompiledWorkspace {
    package let topics: [(definition: TopicDefinition, platform: Bool)]
    package let entities: [Entity]
    package let views: [FeatureView]
    /// Those that the workspace's own fold folds, each as it was when that began; questions read these.
    package let foldedViews: [FeatureView]
    package let derived: [DerivedView]
    package let services: [FeatureService]
    package let questions: [Question]
    package let definitions: [Definition]
    /// The streams that are in force beside it.
    package var folds = FoldGraph()
    /// Versions of topics' data at which its own fold reads them, by topic; of a topic that is not named, the newest.
    package var reads: [String: Int] = [:]

    /// What the fold reads of topics that have had more than one version.
    var readings: [String: TopicReading] {
        var readings: [String: TopicReading] = [:]
        for (topic, _) in topics where topic.upcasting.version > 1 {
            readings[topic.name] = TopicReading(
                topic.upcasting, version: reads[topic.name] ?? topic.upcasting.version)
        }
        return readings
    }

    /// What the workspace's own fold reads of views and questions.
    var foldedTopics: Set<String> { Set(foldedViews.map(\.topic) + questions.map(\.topic)) }

    /// Topics with a lateness.
    var sorted: Set<String> { Set(topics.filter { $0.definition.lateness > 0 }.map(\.definition.name)) }

    package func definitions(_ kind: String) -> [Definition] { definitions.filter { $0.kind == kind } }
}
