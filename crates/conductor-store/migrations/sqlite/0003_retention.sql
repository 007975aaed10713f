-- When the content of a notification was removed: message, title, data, targets, and what providers said of it.
ALTER TABLE notification ADD COLUMN redacted_at INTEGER;
