"""From results lines to tables, pictures and one HTML page; nothing here decides anything."""
