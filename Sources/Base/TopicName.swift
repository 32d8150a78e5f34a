/// What a topic may be called: Kafka's letters, digits, '.', '_' and '-'.
package enum TopicName {
    /// Partitions of one topic.
    package static let partitions = 1...1024

    package static func isLegal(_ name: String) -> Bool {
        (1...Limits.nameLength).contains(name.utf8.count)
            && name.utf8.allSatisfy { byte in
                (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7A) || (byte >= 0x30 && byte <= 0x39)
                    || byte == 0x2E || byte == 0x5F || byte == 0x2D
            }
    }
}
