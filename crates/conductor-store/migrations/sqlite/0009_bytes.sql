-- How many bytes of its tenant's `rateLimit.bytes` the delivery takes while it waits: those of its notification's texts and JSON.
ALTER TABLE pending ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE pending SET bytes = coalesce((
    SELECT octet_length(message) + coalesce(octet_length(title), 0) + coalesce(octet_length(target), 0)
           + coalesce(octet_length(key), 0) + coalesce(octet_length(data), 0) + coalesce(octet_length(metadata), 0)
           + coalesce(octet_length(fallback), 0)
    FROM notification WHERE id = pending.notification), 0);
