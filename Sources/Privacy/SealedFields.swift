import Base
import Catalog
import Crypto
import Foundation

/// What a sealed value is bound to: it opens in this event and in no other.
package struct EventIdentity: Sendable {
    package let topic: String
    package let source: String
    package let id: String

    package init(topic: String, source: String, id: String) {
        self.topic = topic
        self.source = source
        self.id = id
    }

    /// The associated data of AES-GCM for one place of the event's data, as a JSON Pointer (RFC 6901).
    func associated(_ pointer: String) -> [UInt8] {
        var out = ByteWriter(capacity: 64)
        for part in [topic, source, id, pointer] { out.append(sized: part) }
        return out.bytes
    }
}

/// A personal value as a reader finds it.
package enum PersonalValue: Sendable, Equatable {
    /// The JSON text that was published.
    case value([UInt8])
    /// Its key was destroyed then.
    case erased(KeyID, at: Instant)
    /// This node's store has no such key, and nothing says that it was erased.
    case sealed(KeyID)
    /// It does not belong to this event, or was altered.
    case forged(KeyID)

    /// What stands in its place in the data.
    var json: [UInt8] {
        switch self {
        case .value(let text): text
        case .erased(let id, let moment):
            JSON.object([SealedFields.erasedMember: .object(["key": .string("\(id)"), "at": .string("\(moment)")])])
                .canonical
        case .sealed(let id): JSON.object([SealedFields.member: .object(["key": .string("\(id)")])]).canonical
        case .forged(let id):
            JSON.object([
                SealedFields.member: .object([
                    "key": .string("\(id)"), "error": "it does not belong to this event, or was altered",
                ])
            ]).canonical
        }
    }
}

/// Seals parts of an event's data, and opens them. In the log a sealed value is `{"$sealed": base64}` of nonce (12 bytes),
/// AES-256-GCM ciphertext and tag (16); what is enciphered is the value's JSON text, filled up with spaces to a multiple
/// of 16 so that its length tells less.
package enum SealedFields {
    package static let member = "$sealed"
    package static let erasedMember = "$erased"
    private static let memberKey = JSONKey(member)
    private static let block = 16

    /// The data with its personal fields sealed; nil when it has none of them.
    package static func seal(
        _ data: [UInt8], _ fields: [PersonalFields.Field], of event: EventIdentity, under key: SubjectKey,
        scratch document: JSONDocument
    ) throws -> [UInt8]? {
        try document.parse(data)
        let places = places(fields, in: document)
        guard !places.isEmpty else { return nil }
        var edits: [(range: Range<Int>, text: [UInt8])] = []
        for (node, pointer) in places {
            let range = range(of: node, in: document)
            var text = Array(document.bytes[range])
            text += Array(repeating: 0x20, count: (block - text.count % block) % block)
            let box = try AES.GCM.seal(text, using: key.secret, authenticating: event.associated(pointer))
            let sealed = Data(box.nonce) + box.ciphertext + box.tag
            edits.append((range, [UInt8]("{\"\(member)\":\"\(sealed.base64EncodedString())\"}".utf8)))
        }
        return apply(edits, to: document.bytes)
    }

    /// Bytes that the data will have once its fields are sealed.
    package static func sealedSize(_ fields: [PersonalFields.Field], in document: JSONDocument) -> Int {
        places(fields, in: document).reduce(document.bytes.count) { size, place in
            let plain = range(of: place.node, in: document).count
            let padded = (plain + block - 1) / block * block
            // Nonce and tag are 28 bytes; around the base64 stand {"$sealed":""}.
            return size - plain + (padded + 28 + 2) / 3 * 4 + member.utf8.count + 7
        }
    }

    /// Whether the data has one of the fields at all.
    package static func has(_ fields: [PersonalFields.Field], in document: JSONDocument) -> Bool {
        !places(fields, in: document).isEmpty
    }

    /// The first member that only sealing itself writes, if the data has one.
    package static func reservedMember(in document: JSONDocument) -> String? {
        var found: String?
        for node in document.nodes.indices where found == nil && document.kind(node) == .object {
            document.forEachMember(node) { key, _ in
                if let name = document.string(key), name == member || name == erasedMember { found = found ?? name }
            }
        }
        return found
    }

    /// The data with everything opened that the keys open, and in place of the rest what became of it.
    package static func open(
        _ data: [UInt8], of event: EventIdentity, under id: KeyID, _ state: KeyState, scratch document: JSONDocument
    ) -> [UInt8] {
        guard (try? document.parse(data)) != nil else { return data }
        var edits: [(range: Range<Int>, text: [UInt8])] = []
        walk(0, "", document) { node, pointer, box in
            edits.append((range(of: node, in: document), value(box, event, pointer, id, state).json))
        }
        return edits.isEmpty ? data : apply(edits, to: document.bytes)
    }

    private static func value(
        _ text: String, _ event: EventIdentity, _ pointer: String, _ id: KeyID, _ state: KeyState
    ) -> PersonalValue {
        switch state {
        case .erased(let moment): return .erased(id, at: moment)
        case .unknown: return .sealed(id)
        case .live(let secret):
            guard let sealed = Data(base64Encoded: text), let box = try? AES.GCM.SealedBox(combined: sealed),
                let plain = try? AES.GCM.open(box, using: secret, authenticating: event.associated(pointer))
            else { return .forged(id) }
            var end = plain.endIndex
            while end > plain.startIndex, plain[end - 1] == 0x20 { end -= 1 }
            return .value([UInt8](plain[..<end]))
        }
    }

    // MARK: Places

    private static func range(of node: Int, in document: JSONDocument) -> Range<Int> {
        let found = document.nodes[node]
        // A string's own bounds leave its quotes out.
        let quote = found.kind == .string ? 1 : 0
        return Int(found.start) - quote..<Int(found.end) + quote
    }

    /// RFC 6901, section 3.
    private static func step(_ pointer: String, _ key: String) -> String {
        pointer + "/" + key.replacing("~", with: "~0").replacing("/", with: "~1")
    }

    private static func places(
        _ fields: [PersonalFields.Field], in document: JSONDocument
    ) -> [(node: Int, pointer: String)] {
        var found: [(node: Int, pointer: String)] = []
        func go(_ node: Int, _ keys: ArraySlice<JSONKey>, _ pointer: String) {
            guard let key = keys.first else { return found.append((node, pointer)) }
            if document.kind(node) == .array {
                var index = 0
                document.forEachElement(node) { element in
                    go(element, keys, "\(pointer)/\(index)")
                    index += 1
                }
            } else if document.kind(node) == .object {
                if let next = document.member(node, key) { go(next, keys.dropFirst(), step(pointer, key.text)) }
            } else if document.kind(node) != .null {
                // A text where an object should be: nobody knows what it says, so it is taken for the field.
                found.append((node, pointer))
            }
        }
        for field in fields { go(0, field.keys[...], "") }
        // Two fields whose ways are blocked at one place are one.
        var seen: Set<Int> = []
        return found.filter { seen.insert($0.node).inserted }
    }

    private static func walk(
        _ node: Int, _ pointer: String, _ document: JSONDocument, _ found: (Int, String, String) -> Void
    ) {
        switch document.kind(node) {
        case .object:
            if document.nodes[node].count == 1, let inner = document.member(node, memberKey),
                let text = document.string(inner)
            {
                return found(node, pointer, text)
            }
            document.forEachMember(node) { key, value in
                walk(value, step(pointer, document.string(key) ?? ""), document, found)
            }
        case .array:
            var index = 0
            document.forEachElement(node) { element in
                walk(element, "\(pointer)/\(index)", document, found)
                index += 1
            }
        default: break
        }
    }

    private static func apply(_ edits: [(range: Range<Int>, text: [UInt8])], to bytes: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        var at = 0
        for edit in edits.sorted(by: { $0.range.lowerBound < $1.range.lowerBound }) {
            out += bytes[at..<edit.range.lowerBound]
            out += edit.text
            at = edit.range.upperBound
        }
        return out + bytes[at...]
    }
}
