import Base
import Catalog
import EventLog
import Privacy
import RecordFormat

/// Events on their way into one append. Whatever is personal in them, or in what was refused, leaves it sealed.
package struct Intake {
    package typealias Entry = (topic: String, partition: Int?, event: NewEvent)

    private let gateway: Gateway
    /// What the checker knew of a topic when it let an event pass is what the event is sealed by.
    private let checker: Gateway.Checker
    private var entries: [Entry] = []
    /// What of which entry is sealed, and for whom.
    private var seals: [(index: Int, subject: String, fields: [PersonalFields.Field])] = []
    private let document = JSONDocument()
    private var personal: [String: PersonalFields?] = [:]

    package init(_ gateway: Gateway, _ checker: Gateway.Checker) {
        self.gateway = gateway
        self.checker = checker
    }

    package var count: Int { entries.count }
    func accepted(_ count: Int) -> [Entry] { Array(entries.prefix(count)) }

    /// What a topic says of personal fields; asked once a topic.
    private mutating func personal(_ topic: String) -> PersonalFields? {
        if let known = personal[topic] { return known }
        let fields = checker.topic(topic)?.personal
        personal[topic] = .some(fields)
        return fields
    }

    /// Whether what a topic refuses is sealed. A topic that nobody declared may be a personal one, misspelt.
    private mutating func isSealed(_ topic: String) -> Bool {
        personal(topic) != nil || (checker.topic(topic) == nil && gateway.hasPersonalTopics)
    }

    /// An event of the platform's own.
    package mutating func add(_ topic: String, _ partition: Int?, _ event: NewEvent) {
        entries.append((topic, partition, event))
    }

    /// An event that the checker let pass.
    package mutating func accept(_ topic: String, _ event: NewEvent) {
        var event = event
        if let version = checker.topic(topic)?.upcasting.version, version > 1, let data = event.data,
            !event.extensions.contains(where: { $0.name == EventHeader.dataVersion })
        {
            event = event.with(EventHeader.dataVersion, "\(version)", data: data)
        }
        entries.append((topic, nil, event))
        guard let personal = personal(topic), let data = event.data, (try? document.parse(data)) != nil,
            SealedFields.has(personal.fields, in: document)
        else { return }
        // The checker lets none pass that names nobody; if one did, it would still not stand in the clear.
        let subject = gateway.subject(of: event, personal, document) ?? Gateway.subject(ofTopic: topic)
        seals.append((entries.count - 1, subject, personal.fields))
    }

    /// The record of a refused event: its raw bytes as text (or hex when they are no UTF-8) and why. What a topic with
    /// personal fields refuses is sealed as a whole: for the person where one is named who has a key, for the topic
    /// otherwise, and for all undeclared ones together where there is no such topic: what was refused makes no keys.
    package mutating func refuse(_ topic: String, _ event: NewEvent, _ reason: GatewayError) {
        let whole = event.data ?? []
        let raw = Array(whole.prefix(Limits.deadLetterBytes))
        let text = String(validating: raw, as: UTF8.self)
        var members: [String: JSON] = [
            "topic": .string(String(topic.prefix(Limits.nameLength))),
            "id": .string(String(event.id.prefix(Limits.nameLength))),
            "type": .string(String(event.type.prefix(Limits.nameLength))),
            "source": .string(String(event.source.prefix(Limits.nameLength))),
            "time": .string(event.time.description),
            "code": .string(reason.code), "reason": .string(reason.message),
            text == nil ? "rawHex" : "raw": .string(text ?? raw.hex), "truncated": .bool(raw.count < whole.count),
        ]
        // What it takes to publish it once more.
        if let key = event.key.flatMap({ String(validating: $0, as: UTF8.self) }) {
            members["partitionkey"] = .string(key)
        }
        let newest = checker.topic(topic)?.upcasting.version ?? 1
        let stated = event.extensions.first { $0.name == EventHeader.dataVersion }?.value
        if let version = stated ?? (newest > 1 ? "\(newest)" : nil) {
            members["dataversion"] = .string(String(version.prefix(Limits.nameLength)))
        }
        if let subject = event.subject { members["subject"] = .string(String(subject.prefix(Limits.attributeLength))) }
        let data = JSON.object(members)
        let named = whole + [UInt8](topic.utf8) + [0] + [UInt8](event.id.utf8)
        // A plain digest of few bytes could be guessed from, and would outlive the key.
        let digest = isSealed(topic) ? gateway.keys.fingerprint(named) : Digest.of(named)
        let subject = personal(topic).flatMap { fields in
            let isRead = (try? document.parse(whole)) != nil
            return isRead || fields.subject == nil ? gateway.subject(of: event, fields, document) : nil
        }
        let letter = NewEvent(
            id: "dead:\(digest.hex.prefix(32))", source: "headrace:/gateway", type: "event.refused",
            time: min(event.time, gateway.clock()), data: data.canonical)
        deadLetter(letter, of: topic, subject: subject)
    }

    /// A dead letter that a connector wrote itself, of what was to become an event of that topic.
    package mutating func deadLetter(_ letter: NewEvent, of topic: String, subject: String? = nil) {
        entries.append((Gateway.deadLetterTopic, 0, letter))
        guard isSealed(topic) else { return }
        let known = subject.flatMap { gateway.keys.has($0) ? $0 : nil }
        let other = Gateway.subject(ofTopic: checker.topic(topic) == nil ? "" : topic)
        seals.append((entries.count - 1, known ?? other, Self.deadLetterFields))
    }

    private static let deadLetterFields = ["data.raw", "data.rawHex", "data.reason"].compactMap {
        PersonalFields.Field($0)
    }

    /// The events as the log shall have them. The keys they are sealed under are on the disk by then.
    package func sealed() throws -> [Entry] {
        guard !seals.isEmpty else { return entries }
        var result = entries
        let keys = try gateway.keys.keys(of: seals.map(\.subject), at: gateway.clock())
        for (seal, key) in zip(seals, keys) {
            let event = result[seal.index].event
            let identity = EventIdentity(topic: result[seal.index].topic, source: event.source, id: event.id)
            let sealed = try SealedFields.seal(
                event.data ?? [], seal.fields, of: identity, under: key, scratch: document)
            guard let sealed else { continue }
            result[seal.index].event = event.with(EventHeader.keyID, "\(key.id)", data: sealed)
        }
        return result
    }
}

extension Gateway {
    /// In whose name the dead letters of a topic are sealed where nobody else can be named.
    package static func subject(ofTopic topic: String) -> String { "topic:\(topic)" }

    /// Whose data an event holds, by its topic's declaration; nil when it does not say.
    func subject(of event: NewEvent, _ personal: PersonalFields, _ document: JSONDocument) -> String? {
        guard let program = personal.subject else { return event.subject.flatMap { $0.isEmpty ? nil : $0 } }
        var context = CELContext(document: document)
        guard let name = try? program.label(&context), !name.isEmpty, name.utf8.count <= Limits.attributeLength else {
            return nil
        }
        return name
    }

    /// An event's data as the newest version of its topic says it, and which that is; as it stands where it cannot be lifted.
    package func current(_ event: StoredEvent, topic: String) throws -> (data: [UInt8]?, version: Int?) {
        let data = try opened(event, topic: topic)
        let stated = event.header(EventHeader.dataVersion)
        guard !event.isProgress, let upcasting = self.topic(topic)?.upcasting, upcasting.version > 1, let data,
            let version = Upcasting.version(stated), version < upcasting.version,
            let json = try? JSON(parsing: data),
            let lifted = try? upcasting.lift(json, from: version, to: upcasting.version)
        else { return (data, stated.flatMap { Int($0) }) }
        return (lifted.canonical, upcasting.version)
    }

    /// An event's data as a reader may have it: what was sealed is opened, and what cannot be says why. As it stands for
    /// an event without personal fields.
    package func opened(_ event: StoredEvent, topic: String) throws -> [UInt8]? {
        guard let data = event.data, let id = event.header(EventHeader.keyID).flatMap({ KeyID($0) }) else {
            return event.data
        }
        let identity = EventIdentity(topic: topic, source: event.header(EventHeader.source) ?? "", id: event.id)
        return SealedFields.open(data, of: identity, under: id, try keys.state(of: id), scratch: JSONDocument())
    }
}
